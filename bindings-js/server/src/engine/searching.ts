/** Indexes by name, and searches in them, many requests in one call. */
import type { Engine, Index, IndexHit, IndexSearchOptions, TokensInput } from "@maxsim/node";
import type { Metrics } from "../metrics.js";
import { Batcher } from "./batcher.js";
import type { Encoder } from "../encoders/encoder.js";
import { joined, PLAIN } from "./scoring.js";
import { TextIndex } from "./texts.js";

/** What can be searched by name: an index on disk, or texts in memory. */
export type Searchable = Index | TextIndex;

/** One query and what is wanted. */
export interface SearchJob {
  readonly index: Searchable;
  /** `[Lq, d]` */
  readonly query: TokensInput & { dim: number };
  readonly options: Omit<IndexSearchOptions, "signal">;
}

/** Bytes of query vectors that are searched together. */
const MAX_BATCH_BYTES = 1024 * 1024;

/** The indexes of a service. */
export class Searching {
  readonly #indexes: ReadonlyMap<string, Searchable>;
  readonly #batcher: Batcher<SearchJob, IndexHit[]>;

  constructor(indexes: ReadonlyMap<string, Searchable>, concurrency: number, metrics: Metrics) {
    this.#indexes = indexes;
    this.#batcher = new Batcher({
      concurrency,
      maxCost: MAX_BATCH_BYTES,
      cost: ({ query }) => query.data.byteLength,
      key: (job) => this.#key(job),
      run: ([first, ...others], signal) => {
        const { index, query, options } = first!;
        const queries = others.length === 0 ? query : joined([query, ...others.map((job) => job.query)]);
        return index.search(queries, { ...options, signal });
      },
      observe: metrics.batch("search"),
    });
    metrics.queue("search", () => this.#batcher.length);
  }

  /** Name and index, in the order of the configuration. */
  get all(): Iterable<readonly [string, Searchable]> {
    return this.#indexes;
  }

  get(name: string): Searchable | undefined {
    return this.#indexes.get(name);
  }

  /** The best documents. Rejects with `signal.reason`, or as `Index.search` does. */
  search(job: SearchJob, signal: AbortSignal): Promise<IndexHit[]> {
    return this.#batcher.submit(job, signal);
  }

  /** Sees what writers did. */
  async refresh(): Promise<void> {
    await Promise.all([...this.#indexes.values()].map((index) => index.refresh()));
  }

  async close(): Promise<void> {
    await Promise.all([...this.#indexes.values()].map((index) => index.dispose()));
  }

  /** Queries of one index, type and wish may go together. */
  #key({ index, query, options }: SearchJob): string | undefined {
    const { dim } = index.info();
    if (!PLAIN.includes(query.dtype) || query.dim !== dim || query.data.length % dim !== 0) return undefined;
    const name = [...this.#indexes].find(([, other]) => other === index)?.[0];
    return JSON.stringify([name, query.dtype, options], (_, value: unknown) => (typeof value === "bigint" ? `${value}n` : value));
  }
}

/**
 * Opens indexes by their paths, and reads and encodes texts.
 *
 * @throws {MaxSimError} as `engine.openIndex` and {@link TextIndex.open} do, naming the path.
 */
export async function openIndexes(
  engine: Engine,
  encoder: Encoder,
  { indexes, texts }: { indexes: ReadonlyMap<string, string>; texts: ReadonlyMap<string, string> },
): Promise<Map<string, Searchable>> {
  const opened = new Map<string, Searchable>();
  for (const [name, path] of indexes) opened.set(name, await engine.openIndex(path));
  for (const [name, path] of texts) opened.set(name, await TextIndex.open(engine, encoder, path));
  return opened;
}
