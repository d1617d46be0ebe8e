/** `Engine`, `Corpus` and `Scorer` over a native binding. */
import { MaxSimError } from "../error.js";
import type * as api from "../index.js";
import type {
  BackwardOptions, CallOptions, CodesInput, CorpusInput, DifferentiableOperation, DocumentsInput, DType, EngineInfo,
  EngineOptions, FromHiddenBackwardOptions, FromHiddenGradients, FromHiddenInput, Gradients, IdArray, IntegerArray,
  Operation, PackedPairs, Plan, QueryInput, ResidualCodec, ResidualCodes, ResidualCorpusInput, ResidualInput,
  RetrieveOptions, ScoreOptions, ScorerCallOptions, ScorerOptions, Scores, SearchOptions, TensorInput, TokensInput, TopK,
} from "../index.js";
import {
  argumentError, boolean, CALL, count, describe, floats, idMask, integer, integers, listOf, oneOf, settings, text, typed,
  type Schema,
} from "./check.js";
import { disposed, settle, type Held, type Host } from "./host.js";
import { buildIndex, openIndex } from "./indexes.js";
import type { NativeCorpus, NativeEngine, RawBackward, RawOp } from "./native.js";
import { codec, codes, heldCodes, heldResidual, isResidual, RESIDUAL, residual, residualOf } from "./residual.js";
import { dtype, fields, held, TOKEN_FIELDS, tensor, tokens } from "./tokens.js";

const precision = oneOf("default", "exact", "fast", "int8");
const SCORE: Schema<ScoreOptions> = { normalize: boolean, argmax: boolean, precision, validateFinite: boolean, ...CALL };
const SEARCH: Schema<SearchOptions> = {
  topK: count, explain: boolean, chunk: count, largest: boolean, sorted: boolean, precision, ...CALL,
};
const RETRIEVE: Schema<RetrieveOptions> = { ...SEARCH, normalize: boolean, validateFinite: boolean };
const SCORER: Schema<ScorerOptions> = { normalize: boolean, maskPadToken: integer, precision, validateFinite: boolean };
const SCORER_CALL: Schema<ScorerCallOptions> = { argmax: boolean, ...CALL };
const argmax = (value: unknown, argument: string): Int32Array => typed("Int32Array", value, argument);
const BACKWARD: Schema<BackwardOptions> = {
  argmax, method: oneOf("auto", "unified", "lowmem"), wants: listOf(oneOf("q", "d")), ...CALL,
};
const HEAD_BACKWARD: Schema<FromHiddenBackwardOptions> = { argmax, wants: listOf(oneOf("q", "h", "w", "b")), ...CALL };
type Head = { [K in "q" | "h" | "w" | "b"]?: unknown } & ScoreOptions;
const any = (value: unknown): never => value as never;
/** Names only of the operands: they are checked where their paths are known. */
const HEAD: Schema<Head> = { q: any, h: any, w: any, b: any, ...SCORE };
const SCORING = ["maxsim", "maxsimPairs", "maxsimVarlen", "maxsimPadded", "maxsimResidual", "scorePairs"] as const;
const ENGINE: Schema<EngineOptions> = {
  backend: oneOf("auto", "cpu", "wgpu", "cuda"),
  threads: count,
  cpuLevel: oneOf("avx512-vnni", "avx512", "avx2-vnni", "avx2", "neon-dot", "neon", "simd128", "generic"),
  gpuTier: oneOf("portable", "f16", "subgroup", "coop"),
  gpuMemory: count,
  tuning: text,
  silent: boolean,
  worker: boolean,
};
const STORAGE = { storage: dtype, normalize: boolean, validateFinite: boolean };
type Without<S, K extends keyof S> = Omit<S, K>;

function without<S extends object, K extends keyof S>(schema: S, key: K): Without<S, K> {
  const { [key]: _, ...rest } = schema;
  return rest;
}

const OPERATION = without(SCORE, "signal");
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

  async maxsimResidual(q: QueryInput, d: ResidualInput, options?: ScoreOptions): Promise<Scores> {
    const checked = settings<ScoreOptions>(options, "options", SCORE);
    return this.#run({ op: "maxsimResidual", q, d: expectResidual(d) }, checked);
  }

  async plaidApproxScore(queryCentroidScores: TensorInput, d: CodesInput, options?: CallOptions): Promise<Scores> {
    const { signal } = settings<CallOptions>(options, "options", CALL);
    return this.#score(this.#approx(queryCentroidScores, d), signal);
  }

  async maxsimFromHidden(input: FromHiddenInput): Promise<Scores> {
    const { raw, signal } = this.#head(input, HEAD);
    return this.#score(raw, signal);
  }

  async backward(
    operation: DifferentiableOperation,
    gradScores: Float32Array | readonly number[],
    options?: BackwardOptions,
  ): Promise<Gradients> {
    const { signal, ...given } = settings<BackwardOptions>(options, "options", BACKWARD);
    return this.#gradients(gradient(this.#scoring(operation), gradScores, given), signal);
  }

  async maxsimFromHiddenBackward(
    input: Omit<FromHiddenInput, "signal" | "argmax">,
    gradScores: Float32Array | readonly number[],
    options?: FromHiddenBackwardOptions,
  ): Promise<FromHiddenGradients> {
    const { signal, ...given } = settings<FromHiddenBackwardOptions>(options, "options", HEAD_BACKWARD);
    const { raw } = this.#head(input, without(without(HEAD, "signal"), "argmax"));
    return this.#gradients(gradient(raw, gradScores, given), signal);
  }

  async quantizeResidual(
    x: TensorInput,
    by: ResidualCodec,
    cutoffs: Float32Array | readonly number[],
    options?: CallOptions,
  ): Promise<ResidualCodes> {
    this.#check();
    const { signal } = settings<CallOptions>(options, "options", CALL);
    const [rawX, rawCodec, limits] = [tensor(x, "x"), codec(by, "codec"), floats(cutoffs, "cutoffs")];
    return settle(this.#host, [held(rawX), held(rawCodec.centroids)], signal, (cancel) =>
      this.#native.quantizeResidual(rawX, rawCodec, limits, cancel),
    );
  }

  async retrieve(q: QueryInput, d: DocumentsInput, options: RetrieveOptions): Promise<TopK> {
    return this.#retrieve({ op: "retrieve", q, d }, settings<RetrieveOptions>(options, "options", RETRIEVE));
  }

  async packPadded(q: TokensInput, d: TokensInput, options?: CallOptions): Promise<PackedPairs> {
    this.#check();
    const { signal } = settings<CallOptions>(options, "options", CALL);
    const [rawQ, rawD] = [tokens(q, "q"), tokens(d, "d")];
    const packed = await settle(this.#host, [held(rawQ), held(rawD)], signal, (cancel) =>
      this.#native.packPadded(rawQ, rawD, cancel),
    );
    return packed as PackedPairs;
  }

  async corpus(documents: CorpusInput | ResidualCorpusInput): Promise<api.Corpus> {
    this.#check();
    if (typeof documents !== "object" || documents === null) {
      throw argumentError("ERR_VALUE", "documents", "{ data, offsets, dim } or { data, shape }", describe(documents));
    }
    const { native, normalized } = await (isResidual(documents) ? this.#keepResidual(documents) : this.#keep(documents));
    // Disposed meanwhile: the documents went with the engine.
    this.#check();
    const corpus: Corpus = new Corpus(this, native, normalized, {
      score: (query, options) => this.#run({ op: "maxsim", q: query, d: corpus }, options, "query"),
      search: (query, options) => this.#retrieve({ op: "retrieve", q: query, d: corpus }, options, "query"),
    });
    return corpus;
  }

  async #keep(documents: CorpusInput): Promise<Kept> {
    const { storage, normalize, validateFinite, signal, ...rest } = settings<Omit<CorpusInput, "data"> & { data?: unknown }>(
      documents, "documents", { ...TOKEN_FIELDS, ...STORAGE, ...CALL },
    );
    const raw = fields(rest, "");
    const native = await settle(this.#host, [held(raw)], signal, (cancel) =>
      this.#native.corpus(raw, { storage, normalize, validateFinite }, cancel),
    );
    return { native, normalized: normalize ?? true };
  }

  async #keepResidual(documents: ResidualCorpusInput): Promise<Kept> {
    const { signal, ...rest } = settings<{ [K in keyof ResidualInput]?: unknown } & CallOptions>(
      documents, "documents", { ...RESIDUAL, ...CALL },
    );
    const raw = residualOf(rest, "");
    const native = await settle(this.#host, heldResidual(raw), signal, (cancel) =>
      this.#native.residualCorpus(raw, cancel),
    );
    return { native, normalized: true };
  }

  async buildIndex(options: api.BuildIndexOptions): Promise<api.Index> {
    this.#check();
    return buildIndex(this.#host, this.#native, options);
  }

  async openIndex(source: api.IndexSource, options?: api.OpenIndexOptions): Promise<api.Index> {
    this.#check();
    return openIndex(this.#host, this.#native, source, options);
  }

  scorer(options?: ScorerOptions): api.Scorer {
    return new Scorer(this, settings<ScorerOptions>(options, "options", SCORER));
  }

  async exportTuning(): Promise<string> {
    this.#check();
    return (await settle(this.#host, [], undefined, () => this.#native.tuning())).table;
  }

  async explain(operation: Operation): Promise<Plan> {
    const raw = this.#operation(operation);
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

  /** Any operator by its value. */
  #operation(operation: unknown): Raw {
    const { op, ...rest } = named(operation, "operation");
    switch (oneOf(...SCORING, "retrieve", "maxsimFromHidden", "plaidApproxScore", "backward")(op, "op")) {
      case "retrieve": {
        const { q, d, ...options } = rest as { q?: unknown; d?: unknown };
        const checked = settings<RetrieveOptions>(options, "options", without(RETRIEVE, "signal") as typeof RETRIEVE);
        return this.#raw({ op: "retrieve", q, d }, retrieval(checked));
      }
      case "maxsimFromHidden":
        return this.#head(rest, without(HEAD, "signal")).raw;
      case "plaidApproxScore": {
        const { queryCentroidScores, d, ...options } = rest as { queryCentroidScores?: unknown; d?: unknown };
        settings(options, "options", {});
        return this.#approx(queryCentroidScores, d);
      }
      case "backward": {
        const { of, gradScores, ...options } = rest as { of?: unknown; gradScores?: unknown };
        const { op: inner, ...operands } = named(of, "of");
        if (inner !== "maxsimFromHidden") {
          const checked = settings<Omit<BackwardOptions, "signal">>(options, "options", without(BACKWARD, "signal"));
          return gradient(this.#scoring(of), gradScores, checked);
        }
        const { raw } = this.#head(operands, without(without(HEAD, "signal"), "argmax"));
        const checked = settings<Omit<FromHiddenBackwardOptions, "signal">>(options, "options", without(HEAD_BACKWARD, "signal"));
        return gradient(raw, gradScores, checked);
      }
      default:
        return this.#scoring(operation, OPERATION, true);
    }
  }

  /** A scoring operator by its value; unless `corpora`, its documents have to be of this call. */
  #scoring(operation: unknown, schema: Partial<typeof OPERATION> = without(OPERATION, "argmax"), corpora = false): Raw {
    const { op, ...rest } = named(operation, "operation");
    const name = oneOf(...SCORING)(op, "op");
    const { q, d, pairQIdx, pairDIdx, ...others } = rest as Record<string, unknown>;
    const pairs = name === "scorePairs" ? { pairQIdx, pairDIdx } : {};
    // Indices elsewhere are unknown names.
    const options = name === "scorePairs" ? others : { pairQIdx, pairDIdx, ...others };
    if (!corpora && d instanceof Corpus) {
      throw argumentError("ERR_VALUE", "d", "tokens or residual documents of this call", "a corpus");
    }
    const documents = name === "maxsimResidual" ? expectResidual(d) : d;
    return this.#raw({ op: name, q, d: documents, ...pairs }, settings(options, "options", schema as Schema<RawOp["options"]>));
  }

  /** The fused head, and the signal among its fields. */
  #head(input: unknown, schema: Partial<Schema<Head>>): { raw: Raw; signal: CallOptions["signal"] } {
    this.#check();
    if (typeof input !== "object" || input === null || ArrayBuffer.isView(input)) {
      throw argumentError("ERR_VALUE", "input", "{ q, h, w }", describe(input));
    }
    const { q, h, w, b, signal, ...options } = settings<Head>(input, "input", schema as Schema<Head>);
    const [rawQ, rawH, rawW] = [tokens(q, "q"), tokens(h, "h"), tensor(w, "w")];
    const op: RawOp = { op: "maxsimFromHidden", q: rawQ, h: rawH, w: rawW, options };
    const inputs = [held(rawQ), held(rawH), held(rawW)];
    if (b !== undefined) {
      op.b = tensor(b, "b");
      inputs.push(held(op.b));
    }
    return { raw: { op, inputs }, signal };
  }

  #approx(queryCentroidScores: unknown, d: unknown): Raw {
    this.#check();
    const [table, documents] = [tensor(queryCentroidScores, "queryCentroidScores"), codes(d, "d")];
    const op: RawOp = { op: "plaidApproxScore", table, codes: documents, options: {} };
    return { op, inputs: [held(table), heldCodes(documents)] };
  }

  #raw(call: Call, options: RawOp["options"], query = "q"): Raw {
    this.#check();
    const { op, d } = call;
    if (d instanceof Corpus) {
      const corpus = d.native(this);
      const q = tokens(call.q, query, d.dim);
      return { op: { op, q, ...pairs(call), options }, inputs: [held(q)], corpus };
    }
    if (isResidual(d)) {
      const documents = residual(d, "d");
      const q = tokens(call.q, query, documents.codec.centroids.shape.at(-1));
      return { op: { op, q, residual: documents, ...pairs(call), options }, inputs: [held(q), ...heldResidual(documents)] };
    }
    const [q, documents] = [tokens(call.q, query), tokens(d, "d")];
    return { op: { op, q, d: documents, ...pairs(call), options }, inputs: [held(q), held(documents)] };
  }

  async #run(call: Call, { signal, ...options }: RawOp["options"] & CallOptions, query?: string): Promise<Scores> {
    return this.#score(this.#raw(call, options, query), signal);
  }

  #score({ op, inputs, corpus }: Raw, signal: CallOptions["signal"]): Promise<Scores> {
    return settle(this.#host, inputs, signal, (cancel) => this.#native.run(op, corpus, cancel));
  }

  async #gradients({ op, inputs }: Raw, signal: CallOptions["signal"]): Promise<Gradients & FromHiddenGradients> {
    const gradients = await settle(this.#host, inputs, signal, (cancel) => this.#native.backward(op, cancel));
    return gradients as Gradients & FromHiddenGradients;
  }

  async #retrieve(call: Call, { signal, ...options }: RetrieveOptions, query?: string): Promise<TopK> {
    return this.#run(call, { ...retrieval(options), signal }, query) as Promise<TopK>;
  }
}

/** What a binding is called with. */
interface Raw {
  op: RawOp;
  inputs: Held[];
  corpus?: NativeCorpus;
}

interface Kept {
  native: NativeCorpus;
  normalized: boolean;
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

/** An operator's fields, `op` among them. */
function named(operation: unknown, argument: string): Record<string, unknown> {
  if (typeof operation === "object" && operation !== null) return operation as Record<string, unknown>;
  throw argumentError("ERR_VALUE", argument, "{ op, q, d, … }", describe(operation));
}

function expectResidual(d: unknown): ResidualInput {
  if (isResidual(d)) return d;
  const got = d instanceof Corpus ? "a corpus" : describe(d);
  throw argumentError("ERR_VALUE", "d", "residual documents: { codes, residuals, centroids, … }", got);
}

type GradientOptions = Pick<BackwardOptions, "argmax" | "method"> & { wants?: readonly string[] };

/** The operator that gives the gradients of `raw`. */
function gradient({ op, inputs }: Raw, gradScores: unknown, { argmax, wants, ...rest }: GradientOptions): Raw {
  const backward: RawBackward = { ...rest, argmax, gradScores: floats(gradScores, "gradScores"), wants: wants && [...wants] };
  const held = [...inputs, { argument: "gradScores", view: backward.gradScores }];
  if (argmax !== undefined) held.push({ argument: "argmax", view: argmax });
  return { op: { ...op, backward }, inputs: held };
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

