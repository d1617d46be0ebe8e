/** Texts in, scores out. */
import type { Engine, TokensInput } from "@maxsim/node";
import type { Encoded, Encoder } from "../encoders/encoder.js";
import { truncate } from "../encoders/encoder.js";
import type { Metrics } from "../metrics.js";
import { Batcher } from "./batcher.js";
import { scoreGroups } from "./scoring.js";

/** A query and its candidates. */
export interface RerankJob {
  readonly query: string;
  readonly documents: readonly string[];
  /** Tokens of a document that count. */
  readonly maxTokens: number;
}

/** What came out, in the order of the documents. */
export interface Reranked {
  /** `Σ_s max_t ⟨q_s, d_t⟩`, `[N]`. */
  readonly scores: Float32Array;
  /** The scores over the largest score that any document could have for this query: at most 1, at least −1. `[N]` */
  readonly relevance: Float32Array;
  /** Of query and documents together. */
  readonly tokens: number;
  /** Of the batch, in milliseconds. */
  readonly encodeTime: number;
  readonly scoreTime: number;
}

/**
 * Encodes and scores, the requests of a moment together. A batch goes all the way before its place is free: vectors are a
 * hundred times as large as texts, and must not pile up between the two steps.
 */
export class Reranking {
  readonly encoder: Encoder;
  readonly #batcher: Batcher<RerankJob, Reranked>;

  constructor(encoder: Encoder, engine: Engine, metrics: Metrics) {
    this.encoder = encoder;
    this.#batcher = new Batcher({
      concurrency: encoder.concurrency,
      maxCost: encoder.maxBatch,
      cost: ({ query, documents }) => documents.reduce((sum, text) => sum + text.length, query.length),
      key: () => "texts",
      run: (jobs, signal) => rerankAll(encoder, engine, jobs, signal),
      observe: metrics.batch("texts"),
    });
    metrics.queue("texts", () => this.#batcher.length);
  }

  /** Scores of all documents. Rejects with `signal.reason`. */
  rerank(job: RerankJob, signal: AbortSignal): Promise<Reranked> {
    return this.#batcher.submit(job, signal);
  }
}

async function rerankAll(encoder: Encoder, engine: Engine, jobs: readonly RerankJob[], signal: AbortSignal): Promise<Reranked[]> {
  const { dim } = encoder;
  const started = performance.now();
  const queries = await encoder.encode("query", jobs.map(({ query }) => query), signal);
  const encoded = await encoder.encode("document", jobs.flatMap(({ documents }) => documents), signal);
  const documents = truncate(encoded, dim, jobs.flatMap((job) => job.documents.map(() => job.maxTokens)));
  const between = performance.now();
  const counts = jobs.map((job) => job.documents.length);
  const scores = await scoreGroups(engine, operand(queries, dim), operand(documents, dim), counts, { signal });
  const [encodeTime, scoreTime] = [between - started, performance.now() - between];
  let first = 0;
  return jobs.map((_, i) => {
    const [start, end] = [queries.offsets[i]!, queries.offsets[i + 1]!];
    const best = sumOfNorms(queries.vectors.subarray(start * dim, end * dim), dim);
    const last = first + counts[i]!;
    const tokens = end - start + documents.offsets[last]! - documents.offsets[first]!;
    first = last;
    return { scores: scores[i]!, relevance: scores[i]!.map((score) => (best > 0 ? score / best : score)), tokens, encodeTime, scoreTime };
  });
}

function operand({ vectors, offsets }: Encoded, dim: number): TokensInput {
  return { data: vectors, dtype: "f32", dim, offsets };
}

/** The score of a document that has every query token's direction, which no document of unit vectors exceeds. */
function sumOfNorms(vectors: Float32Array, dim: number): number {
  let sum = 0;
  for (let start = 0; start < vectors.length; start += dim) sum += Math.hypot(...vectors.subarray(start, start + dim));
  return sum;
}
