/** Texts in, scores out. */
import type { Engine, TokensInput } from "@maxsim/node";
import type { Encoded, Encoder, TextKind } from "../encoders/encoder.js";
import { truncate } from "../encoders/encoder.js";
import type { Metrics } from "../metrics.js";
import { Batcher } from "./batcher.js";
import { scoreEach } from "./scoring.js";

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
  let [encodeTime, scoreTime] = [0, 0];
  const encode = async (kind: TextKind, texts: readonly string[]): Promise<Encoded> => {
    const started = performance.now();
    const encoded = await encoder.encode(kind, texts, signal);
    encodeTime += performance.now() - started;
    return encoded;
  };
  const queries = await encode("query", jobs.map(({ query }) => query));
  const results = jobs.map(({ documents }, i) => {
    const vectors = queries.vectors.subarray(queries.offsets[i]! * dim, queries.offsets[i + 1]! * dim);
    return { scores: new Float32Array(documents.length), best: sumOfNorms(vectors, dim), tokens: vectors.length / dim };
  });
  for (const portion of portions(jobs, encoder.maxBatch)) {
    const encoded = await encode("document", portion.map(({ text }) => text));
    const documents = truncate(encoded, dim, portion.map(({ job }) => jobs[job]!.maxTokens));
    const started = performance.now();
    const scores = await scoreEach(engine, operand(queries, dim), operand(documents, dim), portion.map(({ job }) => job), { signal });
    scoreTime += performance.now() - started;
    portion.forEach(({ job, position }, i) => {
      results[job]!.scores[position] = scores[i]!;
      results[job]!.tokens += documents.offsets[i + 1]! - documents.offsets[i]!;
    });
  }
  return results.map(({ scores, best, tokens }) => {
    const relevance = scores.map((score) => (best > 0 ? score / best : score));
    return { scores, relevance, tokens, encodeTime, scoreTime };
  });
}

interface Document {
  readonly text: string;
  readonly job: number;
  /** Among the documents of its job. */
  readonly position: number;
}

/** A token has rarely more characters. What is behind them is not encoded, so that no single text takes all the memory. */
const CHARACTERS_PER_TOKEN = 64;

/** The documents of all jobs, in portions of at most `characters`, but at least one document. */
function* portions(jobs: readonly RerankJob[], characters: number): Generator<Document[]> {
  let portion: Document[] = [];
  let size = 0;
  for (const [job, { documents, maxTokens }] of jobs.entries()) {
    for (const [position, document] of documents.entries()) {
      const text = document.slice(0, maxTokens * CHARACTERS_PER_TOKEN);
      if (portion.length > 0 && size + text.length > characters) {
        yield portion;
        [portion, size] = [[], 0];
      }
      portion.push({ text, job, position });
      size += text.length;
    }
  }
  if (portion.length > 0) yield portion;
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
