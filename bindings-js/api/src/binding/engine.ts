/** `Engine`, `Corpus` and `Scorer` over a native binding. */
import { MaxSimError } from "../error.js";
import type * as api from "../index.js";
import type {
  CallOptions, CorpusInput, DocumentsInput, DType, EngineInfo, EngineOptions, IdArray, IntegerArray,
  Operation, PackedPairs, Plan, QueryInput, RetrieveOptions, ScoreOptions, ScorerCallOptions, ScorerOptions, Scores,
  SearchOptions, TokensInput, TopK,
} from "../index.js";
import {
  argumentError, boolean, CALL, count, describe, idMask, integer, integers, oneOf, settings, type Schema,
} from "./check.js";
import { disposed, settle, type Host } from "./host.js";
import type { NativeCorpus, NativeEngine, RawOp, RawTokens } from "./native.js";
import { dtype, fields, TOKEN_FIELDS, tokens } from "./tokens.js";

const precision = oneOf("default", "exact", "fast", "int8");
const SCORE: Schema<ScoreOptions> = { normalize: boolean, argmax: boolean, precision, validateFinite: boolean, ...CALL };
const SEARCH: Schema<SearchOptions> = {
  topK: count, explain: boolean, chunk: count, largest: boolean, sorted: boolean, precision, ...CALL,
};
const RETRIEVE: Schema<RetrieveOptions> = { ...SEARCH, normalize: boolean, validateFinite: boolean };
const SCORER: Schema<ScorerOptions> = { normalize: boolean, maskPadToken: integer, precision, validateFinite: boolean };
const SCORER_CALL: Schema<ScorerCallOptions> = { argmax: boolean, ...CALL };
const ENGINE: Schema<EngineOptions> = {
  backend: oneOf("auto", "cpu", "wgpu", "cuda"),
  threads: count,
  cpuLevel: oneOf("avx512", "avx2", "neon", "simd128", "generic"),
  silent: boolean,
};
const STORAGE = { storage: dtype, normalize: boolean, validateFinite: boolean };
type Without<S, K extends keyof S> = Omit<S, K>;

function without<S extends object, K extends keyof S>(schema: S, key: K): Without<S, K> {
  const { [key]: _, ...rest } = schema;
  return rest;
}

const CORPUS_SCORE = without(SCORE, "normalize");
const SCORER_SEARCH = without(SEARCH, "precision");

/** `Symbol.asyncDispose` is younger than some of the runtimes and is then filled in by compilers under this name. */
const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");

/** Creates engines over `host`'s binding. */
export async function createEngine(host: Host, options?: EngineOptions): Promise<api.Engine> {
  const { backend, ...rest } = settings<EngineOptions>(options, "options", ENGINE);
  const native = await settle(host, [], undefined, () =>
    host.native.createEngine(backend === "auto" ? rest : { backend, ...rest }),
  );
  return new Engine(host, native);
}

class Engine implements api.Engine {
  readonly info: EngineInfo;
  readonly #host: Host;
  readonly #native: NativeEngine;
  #disposed = false;

  constructor(host: Host, native: NativeEngine) {
    this.#host = host;
    this.#native = native;
    this.info = Object.freeze({ ...native.info, version: host.native.VERSION });
  }

  async maxsim(q: QueryInput, d: DocumentsInput, options?: ScoreOptions): Promise<Scores> {
    return this.#run({ op: "maxsim", q, d }, settings<ScoreOptions>(options, "options", SCORE));
  }

  async maxsimPairs(q: QueryInput, d: DocumentsInput, options?: ScoreOptions): Promise<Scores> {
    return this.#run({ op: "maxsimPairs", q, d }, settings<ScoreOptions>(options, "options", SCORE));
  }

  async maxsimVarlen(q: TokensInput, d: DocumentsInput, options?: ScoreOptions): Promise<Scores> {
    return this.#run({ op: "maxsimVarlen", q, d }, settings<ScoreOptions>(options, "options", SCORE));
  }

  async scorePairs(
    q: QueryInput,
    d: DocumentsInput,
    pairQIdx: IntegerArray,
    pairDIdx: IntegerArray,
    options?: ScoreOptions,
  ): Promise<Scores> {
    return this.#run({ op: "scorePairs", q, d, pairQIdx, pairDIdx }, settings<ScoreOptions>(options, "options", SCORE));
  }

  async maxsimPadded(q: TokensInput, d: TokensInput, options?: ScoreOptions): Promise<Scores> {
    return this.#run({ op: "maxsimPadded", q, d }, settings<ScoreOptions>(options, "options", SCORE));
  }

  async retrieve(q: QueryInput, d: DocumentsInput, options: RetrieveOptions): Promise<TopK> {
    return this.#retrieve({ op: "retrieve", q, d }, settings<RetrieveOptions>(options, "options", RETRIEVE));
  }

  async packPadded(q: TokensInput, d: TokensInput, options?: CallOptions): Promise<PackedPairs> {
    this.#check();
    const { signal } = settings<CallOptions>(options, "options", CALL);
    const [rawQ, rawD] = [tokens(q, "q"), tokens(d, "d")];
    const packed = await settle(this.#host, [rawQ, rawD], signal, (cancel) => this.#native.packPadded(rawQ, rawD, cancel));
    return packed as PackedPairs;
  }

  async corpus(documents: CorpusInput): Promise<api.Corpus> {
    this.#check();
    if (typeof documents !== "object" || documents === null) {
      throw argumentError("ERR_VALUE", "documents", "{ data, offsets, dim } or { data, shape }", describe(documents));
    }
    const { storage, normalize, validateFinite, signal, ...rest } = settings<Omit<CorpusInput, "data"> & { data?: unknown }>(
      documents, "documents", { ...TOKEN_FIELDS, ...STORAGE, ...CALL },
    );
    const raw = fields(rest, "");
    const native = await settle(this.#host, [raw], signal, (cancel) =>
      this.#native.corpus(raw, { storage, normalize, validateFinite }, cancel),
    );
    // Disposed meanwhile: the documents went with the engine.
    this.#check();
    const corpus: Corpus = new Corpus(this, native, normalize ?? true, {
      score: (query, options) => this.#run({ op: "maxsim", q: query, d: corpus }, options, "query"),
      search: (query, options) => this.#retrieve({ op: "retrieve", q: query, d: corpus }, options, "query"),
    });
    return corpus;
  }

  scorer(options?: ScorerOptions): api.Scorer {
    return new Scorer(this, settings<ScorerOptions>(options, "options", SCORER));
  }

  async explain(operation: Operation): Promise<Plan> {
    if (typeof operation !== "object" || operation === null) {
      throw argumentError("ERR_VALUE", "operation", "{ op, q, d, … }", describe(operation));
    }
    const { op, q, d, ...rest } = operation as Operation & { pairQIdx?: IntegerArray; pairDIdx?: IntegerArray };
    const name = oneOf("maxsim", "maxsimPairs", "maxsimVarlen", "scorePairs", "maxsimPadded", "retrieve")(op, "op");
    const { pairQIdx, pairDIdx, ...options } = rest;
    const pairs = name === "scorePairs" ? { pairQIdx, pairDIdx } : {};
    const unexpected = name === "scorePairs" ? options : rest;
    const raw =
      name === "retrieve"
        ? this.#raw({ op: name, q, d }, retrieval(settings(unexpected, "options", without(RETRIEVE, "signal"))))
        : this.#raw({ op: name, q, d, ...pairs }, settings(unexpected, "options", without(SCORE, "signal")));
    const plan = await settle(this.#host, raw.inputs, undefined, () => this.#native.explain(raw.op, raw.corpus));
    return { ...plan, choices: Object.fromEntries(plan.choices) };
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#native.dispose();
  }

  [asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #check(): void {
    if (this.#disposed) throw disposed("engine");
  }

  #raw(call: Call, options: RawOp["options"], query = "q"): { op: RawOp; inputs: RawTokens[]; corpus?: NativeCorpus } {
    this.#check();
    const { op, d } = call;
    if (d instanceof Corpus) {
      const corpus = d.native(this);
      const q = tokens(call.q, query, d.dim);
      return { op: { op, q, ...pairs(call), options }, inputs: [q], corpus };
    }
    const [q, documents] = [tokens(call.q, query), tokens(d, "d")];
    return { op: { op, q, d: documents, ...pairs(call), options }, inputs: [q, documents] };
  }

  async #run(call: Call, { signal, ...options }: RawOp["options"] & CallOptions, query?: string): Promise<Scores> {
    const { op, inputs, corpus } = this.#raw(call, options, query);
    return settle(this.#host, inputs, signal, (cancel) => this.#native.run(op, corpus, cancel));
  }

  async #retrieve(call: Call, { signal, ...options }: RetrieveOptions, query?: string): Promise<TopK> {
    return this.#run(call, { ...retrieval(options), signal }, query) as Promise<TopK>;
  }
}

interface Call {
  op: string;
  q: unknown;
  d: unknown;
  pairQIdx?: unknown;
  pairDIdx?: unknown;
}

function pairs({ op, pairQIdx, pairDIdx }: Call): Pick<RawOp, "pairQIdx" | "pairDIdx"> {
  if (op !== "scorePairs") return {};
  return { pairQIdx: integers(pairQIdx, "pairQIdx"), pairDIdx: integers(pairDIdx, "pairDIdx") };
}

/** `topK` has no default: how many hits are wanted is the question. */
function retrieval({ explain, ...options }: RetrieveOptions): RawOp["options"] {
  if (options.topK === undefined) throw argumentError("ERR_VALUE", "topK", "at least 1", "none");
  return { argmax: explain, ...options };
}

interface CorpusCalls {
  score(query: QueryInput, options: ScoreOptions): Promise<Scores>;
  search(query: QueryInput, options: RetrieveOptions): Promise<TopK>;
}

class Corpus implements api.Corpus {
  readonly count: number;
  readonly dim: number;
  readonly dtype: DType;
  readonly bytes: number;
  readonly normalized: boolean;
  readonly #engine: api.Engine;
  readonly #calls: CorpusCalls;
  #native: NativeCorpus | undefined;

  constructor(engine: api.Engine, native: NativeCorpus, normalized: boolean, calls: CorpusCalls) {
    this.count = native.count;
    this.dim = native.dim;
    this.dtype = native.dtype as DType;
    this.bytes = native.bytes;
    this.normalized = normalized;
    this.#engine = engine;
    this.#native = native;
    this.#calls = calls;
  }

  /** The native corpus, for calls of `engine`. */
  native(engine: api.Engine): NativeCorpus {
    if (engine !== this.#engine) throw argumentError("ERR_VALUE", "d", "a corpus of this engine", "a corpus of another engine");
    if (this.#native === undefined) throw disposed("corpus");
    return this.#native;
  }

  async score(query: QueryInput, options?: Omit<ScoreOptions, "normalize">): Promise<Scores> {
    const checked = settings<Omit<ScoreOptions, "normalize">>(options, "options", CORPUS_SCORE);
    return this.#calls.score(query, { ...checked, normalize: this.normalized });
  }

  async search(query: QueryInput, options: SearchOptions): Promise<TopK> {
    const checked = settings<SearchOptions>(options, "options", SEARCH);
    return this.#calls.search(query, { ...checked, normalize: this.normalized });
  }

  async dispose(): Promise<void> {
    this.#native?.dispose();
    this.#native = undefined;
  }

  [asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

class Scorer implements api.Scorer {
  readonly options: Readonly<ScorerOptions>;
  readonly #engine: api.Engine;
  readonly #scoring: ScoreOptions;

  constructor(engine: api.Engine, options: ScorerOptions) {
    const { maskPadToken, ...scoring } = { normalize: true, ...options };
    this.options = Object.freeze({ maskPadToken, ...scoring });
    this.#engine = engine;
    this.#scoring = scoring;
  }

  async forward(q: QueryInput, d: DocumentsInput, options?: ScorerCallOptions): Promise<Scores> {
    return this.#engine.maxsim(q, d, { ...this.#scoring, ...settings<ScorerCallOptions>(options, "options", SCORER_CALL) });
  }

  async forwardWithIds(
    q: TokensInput,
    qIds: IdArray,
    d: TokensInput,
    dIds: IdArray,
    options?: ScorerCallOptions,
  ): Promise<Scores> {
    const pad = this.options.maskPadToken;
    if (pad === undefined) throw argumentError("ERR_VALUE", "maskPadToken", "a token id", "none");
    const masked = (input: TokensInput, ids: IdArray, name: string): TokensInput => ({
      ...input,
      mask: idMask(ids, pad, name),
    });
    try {
      return await this.forward(masked(q, qIds, "qIds"), masked(d, dIds, "dIds"), options);
    } catch (error) {
      throw aboutIds(error);
    }
  }

  async score(q: QueryInput, d: DocumentsInput, options?: ScorerCallOptions): Promise<Scores> {
    const queries = batchSize(q);
    if (queries !== 1) throw argumentError("ERR_SHAPE", "q", "one query", `${queries} queries`);
    const { shape, argmaxShape, ...rest } = await this.forward(q, d, options);
    return {
      ...rest,
      shape: [shape.reduce((n, extent) => n * extent, 1)],
      ...(argmaxShape && { argmaxShape: argmaxShape.slice(-2) }),
    };
  }

  async retrieve(q: QueryInput, d: DocumentsInput, options: Omit<SearchOptions, "precision">): Promise<TopK> {
    const checked = settings<Omit<SearchOptions, "precision">>(options, "options", SCORER_SEARCH) as SearchOptions;
    return this.#engine.retrieve(q, d, { ...this.#scoring, ...checked });
  }
}

/** Masks made of ids are not the caller's; errors about them are errors about ids. */
function aboutIds(error: unknown): unknown {
  const names: Record<string, string> = { "q.mask": "qIds", "d.mask": "dIds" };
  const { argument, expected, got } = error instanceof MaxSimError ? error.details : {};
  const name = names[argument ?? ""];
  return name === undefined ? error : argumentError((error as MaxSimError).code, name, expected ?? "", got ?? "");
}

/** Sequences in `q`, as far as its form tells; whether it is well-formed is checked where it is used. */
function batchSize(q: QueryInput): number {
  const { shape, offsets } = q as Partial<TokensInput>;
  if (Array.isArray(shape)) return shape.slice(0, -2).reduce((n: number, extent: number) => n * extent, 1);
  return offsets === undefined ? 1 : offsets.length - 1;
}

