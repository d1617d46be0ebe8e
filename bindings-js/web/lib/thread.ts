/** Where calls run: on this thread, or on a worker that the package owns. */
import type { Failure, NativeCancel } from "@maxsim/api/binding";
import { buffers, copied, type Reply, type Request, type Stop } from "./protocol.js";
import { failureOf, type Load, type Progress, type Source } from "./service.js";

/** Asks calls to stop. */
export class Cancel implements NativeCancel {
  #listeners: (() => void)[] = [];
  cancelled = false;

  cancel(): void {
    this.cancelled = true;
    for (const listener of this.#listeners) listener();
  }

  then(listener: () => void): void {
    this.#listeners.push(listener);
  }
}

export interface Call {
  cancel?: NativeCancel;
  progress?: Progress;
  /** Undoes what a call did whose result nobody waits for any more. */
  undo?(value: unknown): void;
}

/** Runs the calls of one service. */
export interface Thread {
  call<T extends object>(name: string, args: unknown[], options?: Call): Promise<T | Failure>;
  /** Frees everything, once calls under way are done. */
  close(): void;
}

/** Takes the warnings that come with results. */
export type Warnings = (warnings: string[]) => void;

export const aborted = (): Failure => ({ code: "ERR_ABORTED" as Failure["code"], message: "aborted", details: {} });

/** This thread. A call that computes keeps it busy. */
export function here(loading: Promise<{ load: Load }>, source: Source, warnings: Warnings): Thread {
  const service = loading.then(({ load }) => load(source));
  // Whoever calls first is told.
  service.catch(() => {});
  let last: Promise<unknown> = service;
  return {
    call<T extends object>(name: string, args: unknown[], { cancel, progress }: Call = {}) {
      const answer = (async () => {
        const poll = cancel && (() => (cancel as Cancel).cancelled);
        let module;
        try {
          const { calls, ...loaded } = await service;
          module = loaded.module;
          const value = (await calls[name]!({ poll, progress }, ...(args as never[]))) as T;
          warnings(module.takeWarnings());
          return value;
        } catch (thrown) {
          return failureOf(thrown, module);
        }
      })();
      last = Promise.all([last, answer]).catch(() => {});
      return answer;
    },
    close() {
      void last.then(async () => (await service).close()).catch(() => {});
    },
  };
}

interface Pending {
  settle(result: unknown): void;
  progress?: Progress;
}

/** A worker. Inputs are copied, results are handed over. */
export function elsewhere(worker: Worker, source: Source, warnings: Warnings): Thread {
  const pending = new Map<number, Pending>();
  let calls = 0;
  let closing = false;
  let died: Failure | undefined;

  const post = (request: Request, transfer: Transferable[] = []): void => worker.postMessage(request, transfer);
  const done = (): void => {
    if (closing && pending.size === 0) worker.terminate();
  };
  const settle = (id: number, result: unknown): void => {
    pending.get(id)?.settle(result);
    pending.delete(id);
    done();
  };
  const die = (failure: Failure): void => {
    died = failure;
    for (const id of [...pending.keys()]) settle(id, failure);
    worker.terminate();
  };

  worker.onmessage = ({ data }: MessageEvent<Reply>) => {
    if ("progress" in data) {
      pending.get(data.id)?.progress?.(...data.progress);
      return;
    }
    warnings(data.warnings);
    if (data.id === 0 && "failure" in data) die(data.failure);
    else settle(data.id, "failure" in data ? data.failure : data.value);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    if (calls <= 1) {
      const hint = `a module worker does not start on this page (${event.message || "see the console"}); set worker: false`;
      die({ code: "ERR_UNSUPPORTED", message: `a worker is not supported: ${hint}`, details: { what: "a worker", hint } });
    } else {
      die(failureOf(event.message || "its worker failed"));
    }
  };
  post({ load: source });

  return {
    call<T extends object>(name: string, args: unknown[], { cancel, progress, undo }: Call = {}) {
      return new Promise<T | Failure>((resolve) => {
        if (died !== undefined) return resolve(died);
        if ((cancel as Cancel | undefined)?.cancelled) return resolve(aborted());
        const id = ++calls;
        const stop = cancel && new Stopping();
        let answered = false;
        pending.set(id, {
          progress,
          settle(result) {
            stop?.release();
            if (answered) undo?.(result);
            else resolve(result as T | Failure);
            answered = true;
          },
        });
        (cancel as Cancel | undefined)?.then(() => {
          if (answered) return;
          // The inputs were copied, so nothing of the caller's is needed any more.
          answered = true;
          stop!.set();
          post({ stop: id });
          resolve(aborted());
        });
        try {
          const own = copied(args);
          post({ id, call: name, args: own, stop: stop?.word, progress: progress !== undefined }, [...buffers(own)]);
        } catch (thrown) {
          settle(id, failureOf(thrown));
        }
      });
    },
    close() {
      closing = true;
      done();
    },
  };
}

/** The page's end of a {@link Stop}. */
class Stopping {
  readonly word: Stop = globalThis.crossOriginIsolated
    ? new Int32Array(new SharedArrayBuffer(4))
    : URL.createObjectURL(new Blob());

  set(): void {
    if (typeof this.word === "string") this.release();
    else Atomics.store(this.word, 0, 1);
  }

  release(): void {
    if (typeof this.word === "string") URL.revokeObjectURL(this.word);
  }
}
