/** Texts in, scores out: encoding and scoring, each batched across requests. */
import type { Encoded, Encoder, TextKind } from "../encoders/encoder.js";
import { slice, truncate } from "../encoders/encoder.js";
import type { Metrics } from "../metrics.js";
import { Batcher } from "./batcher.js";
import type { Scoring } from "./scoring.js";

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
  /** Milliseconds. */
  readonly encodeTime: number;
  readonly scoreTime: number;
}

interface Texts {
  readonly kind: TextKind;
  readonly texts: readonly string[];
}

/** Encodes and scores. */
export class Reranking {
  readonly encoder: Encoder;
  readonly #scoring: Scoring;
  readonly #encoding: Batcher<Texts, Encoded>;

  constructor(encoder: Encoder, scoring: Scoring, metrics: Metrics) {
    this.encoder = encoder;
    this.#scoring = scoring;
    this.#encoding = new Batcher({
      concurrency: encoder.concurrency,
      maxCost: encoder.maxBatch,
      cost: ({ texts }) => texts.reduce((sum, text) => sum + text.length, 0),
      key: ({ kind }) => kind,
      run: (jobs, signal) => encodeAll(encoder, jobs, signal),
      observe: metrics.batch("encode"),
    });
    metrics.queue("encode", () => this.#encoding.length);
  }

  /** Vectors of one query, `[Lq, dim]`. */
  async encodeQuery(query: string, signal: AbortSignal): Promise<Float32Array> {
    return (await this.#encoding.submit({ kind: "query", texts: [query] }, signal)).vectors;
  }

  /** Scores of all documents. */
  async rerank({ query, documents, maxTokens }: RerankJob, signal: AbortSignal): Promise<Reranked> {
    const { dim } = this.encoder;
    const started = performance.now();
    const [q, encoded] = await Promise.all([
      this.encodeQuery(query, signal),
      this.#encoding.submit({ kind: "document", texts: documents }, signal),
    ]);
    const { vectors, offsets } = truncate(encoded, dim, maxTokens);
    const between = performance.now();
    const scores = await this.#scoring.score(
      {
        query: { data: q, dtype: "f32", dim },
        documents: { data: vectors, dtype: "f32", dim, offsets },
        normalize: false,
        precision: "default",
      },
      signal,
    );
    const best = sumOfNorms(q, dim);
    return {
      scores,
      relevance: best > 0 ? scores.map((score) => score / best) : scores,
      tokens: (q.length + vectors.length) / dim,
      encodeTime: between - started,
      scoreTime: performance.now() - between,
    };
  }
}

async function encodeAll(encoder: Encoder, jobs: readonly Texts[], signal: AbortSignal): Promise<Encoded[]> {
  const { kind } = jobs[0]!;
  const encoded = await encoder.encode(kind, jobs.flatMap(({ texts }) => texts), signal);
  if (jobs.length === 1) return [encoded];
  let first = 0;
  return jobs.map(({ texts }) => {
    const part = slice(encoded, encoder.dim, first, texts.length);
    first += texts.length;
    return part;
  });
}

/** The score of a document that has every query token's direction, which no document of unit vectors exceeds. */
function sumOfNorms(vectors: Float32Array, dim: number): number {
  let sum = 0;
  for (let start = 0; start < vectors.length; start += dim) sum += Math.hypot(...vectors.subarray(start, start + dim));
  return sum;
}
