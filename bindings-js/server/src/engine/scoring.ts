/** One query with its documents, many such requests in one call of the engine. */
import type { DType, Engine, Precision, ScoreOptions, TokensInput } from "@maxsim/node";
import { fieldError } from "../http/errors.js";
import { Batcher } from "./batcher.js";
import type { Metrics } from "../metrics.js";

/** Documents scored against one query. */
export interface ScoreJob {
  /** `[Lq, d]` */
  readonly query: TokensInput & { dim: number };
  readonly documents: TokensInput;
  readonly normalize: boolean;
  readonly precision: Precision;
}

/** Above this, joining the vectors of several requests costs more than the calls it saves. */
const MAX_BATCH_BYTES = 1024 * 1024;

/** Scores requests, the small ones of a moment together. A score depends on its query and document alone, so nobody can tell. */
export class Scoring {
  readonly #batcher: Batcher<ScoreJob, Float32Array>;

  constructor(engine: Engine, concurrency: number, metrics: Metrics) {
    this.#batcher = new Batcher({
      concurrency,
      maxCost: MAX_BATCH_BYTES,
      cost: ({ query, documents }) => query.data.byteLength + documents.data.byteLength,
      key: batchKey,
      run: async (jobs, signal) => (jobs.length === 1 ? [await scoreOne(engine, jobs[0]!, signal)] : scoreAll(engine, jobs, signal)),
      observe: metrics.batch("score"),
    });
    metrics.queue("score", () => this.#batcher.length);
  }

  /**
   * Scores in the order of the documents, `[N]`. Rejects with `signal.reason`, or as `engine.maxsim` does; NaN and
   * infinity are refused on both sides.
   */
  async score(job: ScoreJob, signal: AbortSignal): Promise<Float32Array> {
    const scores = await this.#batcher.submit(job, signal);
    const bad = scores.findIndex((score) => !Number.isFinite(score));
    if (bad >= 0) throw fieldError(`documents[${bad}]`, "a score that f32 can hold", String(scores[bad]), "ERR_NON_FINITE");
    return scores;
  }
}

async function scoreOne(engine: Engine, job: ScoreJob, signal: AbortSignal): Promise<Float32Array> {
  const { query, documents, normalize, precision } = job;
  return (await engine.maxsim(query, documents, { normalize, precision, validateFinite: true, signal })).scores;
}

/** Types whose sequences can be laid behind one another without looking at them. */
export const PLAIN: readonly (DType | undefined)[] = ["f32", "f16", "bf16"];

function batchKey({ query, documents, normalize, precision }: ScoreJob): string | undefined {
  const plain = PLAIN.includes(query.dtype) && PLAIN.includes(documents.dtype) && packed(documents);
  if (!plain || query.dim !== documents.dim) return undefined;
  return [query.dtype, documents.dtype, query.dim, normalize, precision].join(" ");
}

/** Whether these are packed documents whose offsets and data agree; whatever does not is left to the engine to explain. */
function packed({ data, dim, offsets, mask, lengths, shape }: TokensInput): boolean {
  if (!(offsets instanceof Uint32Array) || dim === undefined || mask || lengths || shape || offsets[0] !== 0) return false;
  return offsets.every((x, i) => i === 0 || x >= offsets[i - 1]!) && offsets[offsets.length - 1]! * dim === data.length;
}

async function scoreAll(engine: Engine, jobs: readonly ScoreJob[], signal: AbortSignal): Promise<Float32Array[]> {
  const { normalize, precision } = jobs[0]!;
  const counts = jobs.map(({ documents }) => documents.offsets!.length - 1);
  const scores = await scoreEach(
    engine,
    joined(jobs.map(({ query }) => query)),
    joined(jobs.map(({ documents }) => documents)),
    counts.flatMap((count, i) => Array<number>(count).fill(i)),
    { normalize, precision, validateFinite: true, signal },
  );
  let at = 0;
  return counts.map((count) => scores.slice(at, (at += count)));
}

/** Every document with query `queryOf[document]`. */
export async function scoreEach(
  engine: Engine, queries: TokensInput, documents: TokensInput, queryOf: readonly number[], options: ScoreOptions,
): Promise<Float32Array> {
  const all = Uint32Array.from(queryOf.keys());
  return (await engine.scorePairs(queries, documents, Uint32Array.from(queryOf), all, options)).scores;
}

/** Batches of one type and dimension behind one another, packed. */
export function joined(parts: readonly TokensInput[]): TokensInput & { dim: number } {
  const { dim, dtype } = parts[0]!;
  const Type = (dtype === "f32" ? Float32Array : Uint16Array) as Float32ArrayConstructor;
  const data = new Type(parts.reduce((sum, part) => sum + part.data.length, 0));
  const offsets = [0];
  let rows = 0;
  for (const part of parts) {
    data.set(part.data as Float32Array, rows * dim!);
    const ends = part.offsets ? (part.offsets as Uint32Array).subarray(1) : [part.data.length / dim!];
    for (const end of ends) offsets.push(rows + end);
    rows += part.data.length / dim!;
  }
  return { data, dtype: dtype!, dim: dim!, offsets: Uint32Array.from(offsets) };
}
