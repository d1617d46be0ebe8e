/**
 * Dynamic batching without waiting: a job that finds the stage idle runs at once; those that come while it is busy wait
 * and run together. Batches grow with the load, and an idle service adds no latency.
 */

/** What a {@link Batcher} needs to know about its jobs. */
export interface Stage<Job, Result> {
  /** Batches that run at the same time. */
  readonly concurrency: number;
  /** Largest cost of a batch; a job that costs more runs alone. */
  readonly maxCost: number;
  cost(job: Job): number;
  /** Jobs of equal keys may share a batch; one without a key runs alone. */
  key(job: Job): string | undefined;
  /** Results in the order of the jobs. */
  run(jobs: readonly Job[], signal: AbortSignal): Promise<readonly Result[]>;
  /** Told about every batch: its jobs, how long the first of them waited, and how long it ran, in seconds. */
  observe?(jobs: number, waited: number, ran: number): void;
}

interface Waiting<Job, Result> {
  readonly job: Job;
  readonly signal: AbortSignal;
  readonly since: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (reason: unknown) => void;
}

/** Runs jobs in batches of whatever waits, first come, first served. */
export class Batcher<Job, Result> {
  readonly #stage: Stage<Job, Result>;
  #waiting: Waiting<Job, Result>[] = [];
  #running = 0;

  constructor(stage: Stage<Job, Result>) {
    this.#stage = stage;
  }

  /** Jobs that wait. */
  get length(): number {
    return this.#waiting.length;
  }

  /** The result of `job`. Rejects with `signal.reason` when that aborts, whether the job waits or runs. */
  submit(job: Job, signal: AbortSignal): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const leave = (): void => {
        this.#waiting = this.#waiting.filter((other) => other !== waiting);
        reject(signal.reason);
      };
      const settled = <T>(settle: (value: T) => void) => (value: T) => {
        signal.removeEventListener("abort", leave);
        settle(value);
      };
      const waiting = { job, signal, since: performance.now(), resolve: settled(resolve), reject: settled(reject) };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.push(waiting);
      this.#start();
    });
  }

  #start(): void {
    while (this.#running < this.#stage.concurrency && this.#waiting.length > 0) {
      this.#running += 1;
      void this.#run(this.#take()).finally(() => {
        this.#running -= 1;
        this.#start();
      });
    }
  }

  /** The first job, and those behind it that fit in with it. */
  #take(): Waiting<Job, Result>[] {
    const { key, cost, maxCost } = this.#stage;
    const first = this.#waiting[0]!;
    const wanted = key(first.job);
    let total = cost(first.job);
    const batch = [first];
    const rest: Waiting<Job, Result>[] = [];
    for (const other of this.#waiting.slice(1)) {
      const fits = wanted !== undefined && key(other.job) === wanted && total + cost(other.job) <= maxCost;
      if (fits) total += cost(other.job);
      (fits ? batch : rest).push(other);
    }
    this.#waiting = rest;
    return batch;
  }

  async #run(batch: readonly Waiting<Job, Result>[]): Promise<void> {
    const started = performance.now();
    try {
      const results = await this.#stage.run(batch.map(({ job }) => job), whenAllAbort(batch.map(({ signal }) => signal)));
      batch.forEach(({ resolve }, i) => resolve(results[i]!));
    } catch (reason) {
      // One bad job fails its batch, not its batch-mates.
      if (batch.length === 1) batch[0]!.reject(reason);
      else for (const one of batch) if (!one.signal.aborted) await this.#run([one]);
    } finally {
      const ended = performance.now();
      this.#stage.observe?.(batch.length, (started - batch[0]!.since) / 1000, (ended - started) / 1000);
    }
  }
}

/** Aborts when nobody is left who wants the result. */
function whenAllAbort(signals: readonly AbortSignal[]): AbortSignal {
  if (signals.length === 1) return signals[0]!;
  const controller = new AbortController();
  let left = signals.length;
  const one = (): void => {
    left -= 1;
    if (left === 0) controller.abort();
  };
  for (const signal of signals) {
    if (signal.aborted) one();
    else signal.addEventListener("abort", one, { once: true });
  }
  return controller.signal;
}
