/** The native binding of `@maxsim/api` over threads. */
import type { BlobLike, FileHandleLike, IndexInfo, PassedOver } from "@maxsim/api";
import type {
  Failure, Native, NativeBuild, NativeCancel, NativeCorpus, NativeEncoder, NativeEngine, NativeIndex, RawBatch, RawBuildOptions,
  RawBuildState, RawBytes, RawCodec, RawCorpusOptions, RawCount, RawEncoded, RawEngineOptions, RawGradients, RawHits, RawIds,
  RawIndexSearch, RawIndexSource, RawOp, RawPacked, RawPlan, RawQuantized, RawResidual, RawResidualCodes, RawResult, RawRows,
  RawScores, RawSelection, RawTensor, RawTokens, RawTuning,
} from "@maxsim/api/binding";
import type { Changed } from "./index-service.js";
import type { CorpusFacts } from "./module.js";
import type { Content, Place } from "./places.js";
import { copied } from "./protocol.js";
import { type Call, Cancel, elsewhere, here, type Thread } from "./thread.js";
import { failure, type Load, type Progress, type Source, unsupported } from "./service.js";
import { webgpu } from "./webgpu.js";

/** Milliseconds after which the worker of quantisers goes, which nobody disposes. */
const IDLE = 10_000;

const warnings: string[] = [];
const collect = (more: string[]): void => void warnings.push(...more);

/** A module, and how to get it onto a thread. Bundlers look for these forms. */
interface Kind {
  worker(): Worker;
  load(): Promise<{ load: Load }>;
}

const CPU: Kind = {
  worker: () => new Worker(new URL("./cpu.worker.js", import.meta.url), { type: "module" }),
  load: () => import("./cpu.js"),
};
const GPU: Kind = {
  worker: () => new Worker(new URL("./gpu.worker.js", import.meta.url), { type: "module" }),
  load: () => import("./gpu.js"),
};
const ENCODER: Kind = {
  worker: () => new Worker(new URL("./encoder.worker.js", import.meta.url), { type: "module" }),
  load: () => import("./encoder.js"),
};

const PLAID: Kind = {
  worker: () => new Worker(new URL("./plaid.worker.js", import.meta.url), { type: "module" }),
  load: () => import("./plaid.js"),
};

const url = {
  cpu: () => new URL("./cpu-simd.wasm", import.meta.url).href,
  cpuAll: () => new URL("./cpu-all.wasm", import.meta.url).href,
  cpuScalar: () => new URL("./cpu-scalar.wasm", import.meta.url).href,
  gpu: () => new URL("./gpu.wasm", import.meta.url).href,
  gpuAll: () => new URL("./gpu-all.wasm", import.meta.url).href,
  plaid: () => new URL("./plaid-simd.wasm", import.meta.url).href,
  plaidAll: () => new URL("./plaid-all.wasm", import.meta.url).href,
  plaidGpu: () => new URL("./plaid-gpu.wasm", import.meta.url).href,
  plaidGpuAll: () => new URL("./plaid-gpu-all.wasm", import.meta.url).href,
  plaidScalar: () => new URL("./plaid-scalar.wasm", import.meta.url).href,
  encoder: () => new URL("./encoder.wasm", import.meta.url).href,
  model: () => new URL("./static-en-128.bin", import.meta.url).href,
};

/** A module of one function that returns a vector. */
const SIMD_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);
const hasSimd = (): boolean => WebAssembly.validate(SIMD_PROBE);

function thread(kind: Kind, source: Source, worker = typeof Worker !== "undefined"): Thread {
  return worker ? elsewhere(kind.worker(), source, collect) : here(kind.load(), source, collect);
}

const failed = (value: object): value is Failure => "code" in value;

/** On WebGPU and the CPU, which kernel runs is a function of types: nothing is left to choose. */
const untuned = (backend: string): Failure => unsupported(`a tuning table on ${backend}`, "CUDA alone has kernels to choose between");

/** Frees what users forget to. */
const forgotten = new FinalizationRegistry<() => void>((free) => free());

/** Indexes, and builds of them, each on a thread of its own. */
class Indexes {
  readonly #options: RawEngineOptions;
  readonly #worker: boolean | undefined;
  readonly #gpu: boolean;

  /** `gpu`: whether searches are the GPU's, but for those of an index that is read by and by. */
  constructor({ worker, ...options }: RawEngineOptions, gpu = false) {
    this.#options = options;
    this.#worker = worker;
    // Beside a GPU there are vectors.
    this.#gpu = gpu && hasSimd();
  }

  /** `all`: of a module that builds, changes and reads indexes by and by, too. */
  #thread(gpu: boolean, all: boolean): Thread {
    const scalar = !gpu && this.#scalar;
    const wasm = scalar ? url.plaidScalar : gpu ? (all ? url.plaidGpuAll : url.plaidGpu) : all ? url.plaidAll : url.plaid;
    return thread(PLAID, { wasm: wasm(), scalar, gpu, all }, this.#worker);
  }

  /** Browsers without vectors are few: one module is enough for them. */
  get #scalar(): boolean {
    return !hasSimd() || this.#options.cpuLevel === "generic";
  }

  async open(source: RawIndexSource, lazy: boolean, progress?: Progress, cancel?: NativeCancel): Promise<NativeIndex | Failure> {
    const place = placeOf(source);
    if (place === undefined) return wrong("source", "a URL", JSON.stringify(source));
    // What is read by and by is the CPU's, and few pages': its module is the one that does everything.
    const opened = await this.#prefer(this.#gpu && !lazy, lazy, [place, lazy], { progress, cancel });
    if (failed(opened)) return opened;
    const reopen = lazy ? undefined : this.#reopening("bytes" in place ? { bytes: new Uint8Array() } : place, opened.gpu);
    return new Index(opened, reopen, opened.gpu && this.#either);
  }

  /** Opens an index, with the GPU where that can, unless it was asked for. */
  async #prefer(gpu: boolean, all: boolean, args: unknown[], call: Call): Promise<Opened | Failure> {
    const opened = await this.#open(gpu, all, args, call);
    return gpu && this.#either && failed(opened) && NEXT.includes(opened.code) ? this.#open(false, all, args, call) : opened;
  }

  async #open(gpu: boolean, all: boolean, args: unknown[], call: Call): Promise<Opened | Failure> {
    const at = this.#thread(gpu, all);
    const facts = await at.call<{ info: IndexInfo }>("open", [this.#options, ...args], call);
    if (!failed(facts)) return { thread: at, info: facts.info, gpu };
    at.close();
    return facts;
  }

  /** How an index is opened once more; holds nothing of what it was opened from. */
  #reopening(place: Place, gpu: boolean): Reopen | undefined {
    if (!gpu && this.#scalar) return undefined;
    return (contents) => this.#prefer(gpu, true, [place, false, contents], {});
  }

  /** Whether what a GPU cannot do is to be done by the CPU. */
  get #either(): boolean {
    return this.#options.backend === undefined;
  }

  async build(path: string | FileHandleLike, options: RawBuildOptions): Promise<NativeBuild | Failure> {
    const place = placeOf(path);
    if (place === undefined || "url" in place) return wrong("path", "opfs:path or a directory handle", JSON.stringify(path));
    const at = this.#thread(this.#gpu, true);
    const state = await at.call<RawBuildState>("create", [this.#options, place, options]);
    if (!failed(state)) return new Build(at);
    at.close();
    return state;
  }
}

const wrong = (argument: string, expected: string, got: string): Failure =>
  failure("ERR_VALUE", `${argument}: expected ${expected}, got ${got}`, { argument, expected, got });

/** What a thread is to open, which does not know what URLs of the page are relative to; `undefined` if it is no URL. */
function placeOf(source: RawIndexSource): Place | undefined {
  if (typeof source === "string") {
    if (source.startsWith("opfs:")) return { opfs: source.slice("opfs:".length) };
    try {
      return { url: new URL(source, globalThis.document?.baseURI ?? globalThis.location.href).href };
    } catch {
      return undefined;
    }
  }
  if (source instanceof Uint8Array) return { bytes: source };
  return "kind" in source ? { handle: source as FileSystemHandle } : { blob: source as BlobLike as Blob };
}

/** An index on its thread. */
interface Opened {
  thread: Thread;
  info: IndexInfo;
  /** Whether a GPU searches it. */
  gpu: boolean;
}

/** Opens an index once more, by a module that does all there is to do. */
type Reopen = (contents: Content[]) => Promise<Opened | Failure>;

/** With these, an index is searched by a module that has the CPU, too. */
const OF_DEVICE: readonly Failure["code"][] = ["ERR_UNSUPPORTED", "ERR_COMPILE", "ERR_DEVICE_LOST", "ERR_LIMIT", "ERR_OUT_OF_MEMORY"];

/** An index. Its first module may only search it: it moves to another thread when there is more to do, as it is in memory. */
class Index implements NativeIndex {
  /** Where it is; an object of its own, so that what nobody holds can be let go. */
  readonly #at: { thread: Thread };
  #info: IndexInfo;
  /** `undefined` where it does not move, or has. */
  #reopen: Reopen | undefined;
  /** Whether searches that fail on a GPU are to be done by the CPU. */
  readonly #either: boolean;
  #moving: Promise<Failure | undefined> | undefined;
  #disposed = false;

  constructor({ thread, info }: Omit<Opened, "gpu">, reopen?: Reopen, either = false) {
    const at = { thread };
    this.#at = at;
    this.#info = info;
    this.#reopen = reopen;
    this.#either = either;
    forgotten.register(this, () => at.thread.close());
  }

  info(): IndexInfo {
    return this.#info;
  }

  async search(q: RawTokens, options: RawIndexSearch, cancel?: NativeCancel): Promise<RawHits | Failure> {
    const search = (inputs: unknown[]): Promise<RawHits | Failure> => this.#at.thread.call<RawHits>("search", inputs, { cancel });
    if (!this.#either || this.#reopen === undefined) return search([q, options]);
    const inputs = copied([q, options]);
    const found = await search(inputs);
    if (!failed(found) || !OF_DEVICE.includes(found.code)) return found;
    return (await this.#move()) ?? search(inputs);
  }

  add(batch: RawBatch, replace: boolean, cancel?: NativeCancel): Promise<RawCount | Failure> {
    return this.#change("add", [batch, replace], cancel);
  }

  delete(which: RawSelection, cancel?: NativeCancel): Promise<RawCount | Failure> {
    return this.#change("delete", [which], cancel);
  }

  compact(cancel?: NativeCancel): Promise<RawCount | Failure> {
    return this.#change("compact", [], cancel);
  }

  refresh(): Promise<RawCount | Failure> {
    return this.#change("refresh", [], undefined, false);
  }

  verify(): Promise<RawCount | Failure> {
    return this.#at.thread.call("verify", []);
  }

  pack(): Promise<RawBytes | Failure> {
    return this.#at.thread.call("pack", []);
  }

  metadata(ids: RawIds): Promise<RawRows | Failure> {
    return this.#at.thread.call("metadata", [ids]);
  }

  dispose(): void {
    this.#disposed = true;
    this.#at.thread.close();
  }

  /** Goes to where all can be done, unless it is there; why it cannot, if it cannot. */
  #move(): Promise<Failure | undefined> {
    const move = async (reopen: Reopen): Promise<Failure | undefined> => {
      const contents = await this.#at.thread.call<Content[]>("contents", []);
      const opened = failed(contents) ? contents : await reopen(contents);
      if (failed(opened)) {
        this.#moving = undefined;
        return opened;
      }
      const before = this.#at.thread;
      this.#at.thread = opened.thread;
      this.#reopen = undefined;
      before.close();
      if (!this.#disposed) return undefined;
      opened.thread.close();
      return failure("ERR_DISPOSED", "index was disposed", { what: "index" });
    };
    return (this.#moving ??= this.#reopen === undefined ? Promise.resolve(undefined) : move(this.#reopen));
  }

  async #change(name: string, args: unknown[], cancel?: NativeCancel, moves = true): Promise<RawCount | Failure> {
    if (moves && this.#reopen !== undefined) {
      // They are the caller's again when this returns.
      args = copied(args);
      const failure = await this.#move();
      if (failure !== undefined) return failure;
    }
    const keep = (result: Changed | Failure): void => {
      // Changes may be answered in another order than that in which they were made.
      if (!failed(result) && result.info.generation >= this.#info.generation) this.#info = result.info;
    };
    const result = await this.#at.thread.call<Changed>(name, args, { cancel, undo: (late) => keep(late as Changed) });
    keep(result);
    return result;
  }
}

class Build implements NativeBuild {
  readonly #thread: Thread;
  #finished = false;

  constructor(thread: Thread) {
    this.#thread = thread;
  }

  state(): Promise<RawBuildState | Failure> {
    return this.#thread.call("state", []);
  }

  sample(documents: RawTokens, cancel?: NativeCancel): Promise<RawBuildState | Failure> {
    return this.#thread.call("sample", [documents], { cancel });
  }

  train(cancel?: NativeCancel): Promise<RawBuildState | Failure> {
    return this.#thread.call("train", [], { cancel });
  }

  add(batch: RawBatch, cancel?: NativeCancel): Promise<RawBuildState | Failure> {
    return this.#thread.call("encode", [batch], { cancel });
  }

  async finish(): Promise<NativeIndex | Failure> {
    const facts = await this.#thread.call<{ info: IndexInfo }>("finish", []);
    if (failed(facts)) return facts;
    this.#finished = true;
    return new Index({ thread: this.#thread, info: facts.info });
  }

  dispose(): void {
    // The thread is the index's then.
    if (!this.#finished) this.#thread.close();
  }
}

class Engine implements NativeEngine {
  readonly info: NativeEngine["info"];
  readonly #thread: Thread;
  readonly #indexes: Indexes;

  constructor(thread: Thread, info: NativeEngine["info"], indexes: Indexes) {
    this.#thread = thread;
    this.#indexes = indexes;
    this.info = info;
    forgotten.register(this, () => thread.close());
  }

  run(op: RawOp, corpus?: NativeCorpus, cancel?: NativeCancel): Promise<RawScores | Failure> {
    return this.#thread.call("run", [op, (corpus as Corpus | undefined)?.number], { cancel });
  }

  backward(op: RawOp, cancel?: NativeCancel): Promise<RawGradients | Failure> {
    return this.#thread.call("backward", [op], { cancel });
  }

  explain(op: RawOp, corpus?: NativeCorpus): Promise<RawPlan | Failure> {
    return this.#thread.call("explain", [op, (corpus as Corpus | undefined)?.number]);
  }

  async tuning(): Promise<RawTuning | Failure> {
    return untuned(this.info.backend);
  }

  packPadded(q: RawTokens, d: RawTokens, cancel?: NativeCancel): Promise<RawPacked | Failure> {
    return this.#thread.call("packPadded", [q, d], { cancel });
  }

  quantizeResidual(
    x: RawTensor, codec: RawCodec, cutoffs: Float32Array, cancel?: NativeCancel,
  ): Promise<RawResidualCodes | Failure> {
    return this.#thread.call("quantizeResidual", [x, codec, cutoffs], { cancel });
  }

  corpus(documents: RawTokens, options: RawCorpusOptions, cancel?: NativeCancel): Promise<NativeCorpus | Failure> {
    return this.#keep("corpus", [documents, options], cancel);
  }

  residualCorpus(documents: RawResidual, cancel?: NativeCancel): Promise<NativeCorpus | Failure> {
    return this.#keep("residualCorpus", [documents], cancel);
  }

  openIndex(
    source: RawIndexSource, lazy: boolean, progress?: Progress, cancel?: NativeCancel,
  ): Promise<NativeIndex | Failure> {
    return this.#indexes.open(source, lazy, progress, cancel);
  }

  createBuild(path: string | FileHandleLike, options: RawBuildOptions): Promise<NativeBuild | Failure> {
    return this.#indexes.build(path, options);
  }

  dispose(): void {
    this.#thread.close();
  }

  async #keep(call: string, args: unknown[], cancel?: NativeCancel): Promise<NativeCorpus | Failure> {
    const drop = (number: number): void => void this.#thread.call("dropCorpus", [number]);
    const facts = await this.#thread.call<CorpusFacts>(call, args, {
      cancel,
      undo: (value) => "number" in (value as object) && drop((value as CorpusFacts).number),
    });
    return failed(facts) ? facts : new Corpus(facts, this, drop);
  }
}

/** Whether the modules for scoring and searching token vectors do without an operator. */
const isRare = (op: RawOp): boolean => [op.h, op.backward, op.residual, op.table].some((part) => part !== undefined);

/**
 * An engine for scoring and searching token vectors, and one for all the rest, which few pages use: it is started when that comes
 * up. Either keeps its own corpora.
 */
class SearchEngine extends Engine {
  readonly #start: () => Promise<NativeEngine | Failure>;
  #all: Promise<NativeEngine | Failure> | undefined;

  constructor(thread: Thread, info: NativeEngine["info"], indexes: Indexes, start: () => Promise<NativeEngine | Failure>) {
    super(thread, info, indexes);
    this.#start = start;
  }

  override run(op: RawOp, corpus?: NativeCorpus, cancel?: NativeCancel): Promise<RawScores | Failure> {
    const at = (corpus as Corpus | undefined)?.engine ?? this;
    if (at !== this) return at.run(op, corpus, cancel);
    return isRare(op) ? this.#ask(op, (engine, op) => engine.run(op, undefined, cancel)) : super.run(op, corpus, cancel);
  }

  override explain(op: RawOp, corpus?: NativeCorpus): Promise<RawPlan | Failure> {
    const at = (corpus as Corpus | undefined)?.engine ?? this;
    if (at !== this) return at.explain(op, corpus);
    return isRare(op) ? this.#ask(op, (engine, op) => engine.explain(op)) : super.explain(op, corpus);
  }

  override backward(op: RawOp, cancel?: NativeCancel): Promise<RawGradients | Failure> {
    return this.#ask(op, (engine, op) => engine.backward(op, cancel));
  }

  override packPadded(q: RawTokens, d: RawTokens, cancel?: NativeCancel): Promise<RawPacked | Failure> {
    return this.#ask({ q, d }, (engine, { q, d }) => engine.packPadded(q, d, cancel));
  }

  override quantizeResidual(
    x: RawTensor, codec: RawCodec, cutoffs: Float32Array, cancel?: NativeCancel,
  ): Promise<RawResidualCodes | Failure> {
    return this.#ask({ x, codec, cutoffs }, (engine, { x, codec, cutoffs }) => engine.quantizeResidual(x, codec, cutoffs, cancel));
  }

  override residualCorpus(documents: RawResidual, cancel?: NativeCancel): Promise<NativeCorpus | Failure> {
    return this.#ask(documents, (engine, documents) => engine.residualCorpus(documents, cancel));
  }

  override dispose(): void {
    super.dispose();
    void this.#all?.then((engine) => failed(engine) || engine.dispose());
  }

  async #ask<T extends object, I>(inputs: I, call: (engine: NativeEngine, inputs: I) => Promise<T | Failure>): Promise<T | Failure> {
    // They are the caller's again when this returns.
    const own = copied(inputs);
    const all = await (this.#all ??= this.#start());
    if (!failed(all)) return call(all, own);
    this.#all = undefined;
    return all;
  }
}

class Corpus implements NativeCorpus {
  readonly number: number;
  readonly count: number;
  readonly dim: number;
  readonly dtype: string;
  readonly bytes: number;
  /** Who keeps it. */
  readonly engine: Engine;
  #drop: ((number: number) => void) | undefined;

  constructor({ number, count, dim, dtype, bytes }: CorpusFacts, engine: Engine, drop: (number: number) => void) {
    this.engine = engine;
    this.number = number;
    this.count = count;
    this.dim = dim;
    this.dtype = dtype;
    this.bytes = bytes;
    this.#drop = drop;
    forgotten.register(this, () => drop(number), this);
  }

  dispose(): void {
    forgotten.unregister(this);
    this.#drop?.(this.number);
    this.#drop = undefined;
  }
}

/** With these, another backend is asked. */
const NEXT: readonly Failure["code"][] = ["ERR_UNSUPPORTED", "ERR_COMPILE", "ERR_DEVICE_LOST"];

/** A first choice, and another engine for what it cannot do, started when that comes up. */
class Preferring implements NativeEngine {
  readonly info: NativeEngine["info"];
  readonly #first: NativeEngine;
  readonly #start: () => Promise<NativeEngine | Failure>;
  readonly #silent: boolean;
  #second: Promise<NativeEngine | Failure> | undefined;

  constructor(first: NativeEngine, start: () => Promise<NativeEngine | Failure>, silent = false) {
    this.info = first.info;
    this.#first = first;
    this.#start = start;
    this.#silent = silent;
  }

  run(op: RawOp, corpus?: NativeCorpus, cancel?: NativeCancel): Promise<RawScores | Failure> {
    return this.#ask(corpus, (engine) => engine.run(op, corpus, cancel));
  }

  backward(op: RawOp, cancel?: NativeCancel): Promise<RawGradients | Failure> {
    return this.#ask(undefined, (engine) => engine.backward(op, cancel));
  }

  explain(op: RawOp, corpus?: NativeCorpus): Promise<RawPlan | Failure> {
    return this.#ask(corpus, (engine) => engine.explain(op, corpus));
  }

  tuning(): Promise<RawTuning | Failure> {
    return this.#first.tuning();
  }

  packPadded(q: RawTokens, d: RawTokens, cancel?: NativeCancel): Promise<RawPacked | Failure> {
    return this.#first.packPadded(q, d, cancel);
  }

  quantizeResidual(
    x: RawTensor, codec: RawCodec, cutoffs: Float32Array, cancel?: NativeCancel,
  ): Promise<RawResidualCodes | Failure> {
    return this.#ask(undefined, (engine) => engine.quantizeResidual(x, codec, cutoffs, cancel));
  }

  corpus(documents: RawTokens, options: RawCorpusOptions, cancel?: NativeCancel): Promise<NativeCorpus | Failure> {
    return this.#ask(undefined, (engine) => engine.corpus(documents, options, cancel));
  }

  residualCorpus(documents: RawResidual, cancel?: NativeCancel): Promise<NativeCorpus | Failure> {
    return this.#ask(undefined, (engine) => engine.residualCorpus(documents, cancel));
  }

  openIndex(
    source: RawIndexSource, lazy: boolean, progress?: Progress, cancel?: NativeCancel,
  ): Promise<NativeIndex | Failure> {
    return this.#first.openIndex(source, lazy, progress, cancel);
  }

  createBuild(path: string | FileHandleLike, options: RawBuildOptions): Promise<NativeBuild | Failure> {
    return this.#first.createBuild(path, options);
  }

  dispose(): void {
    this.#first.dispose();
    void this.#second?.then((engine) => failed(engine) || engine.dispose());
  }

  /** Documents that are kept stay where they are. */
  async #ask<T extends object>(
    corpus: NativeCorpus | undefined,
    call: (engine: NativeEngine) => Promise<T | Failure>,
  ): Promise<T | Failure> {
    if (corpus !== undefined) return call((corpus as Corpus).engine);
    const result = await call(this.#first);
    if (!failed(result) || !NEXT.includes(result.code)) return result;
    if (this.#second === undefined && !this.#silent) collect([`the CPU takes over where ${this.info.backend} fails: ${result.message}`]);
    const second = await (this.#second ??= this.#start());
    return failed(second) ? result : call(second);
  }
}

type EncoderFacts = Pick<NativeEncoder, "name" | "dim" | "fingerprint">;

class Encoder implements NativeEncoder {
  readonly name: string;
  readonly dim: number;
  readonly fingerprint: bigint;
  readonly #thread: Thread;

  constructor(thread: Thread, { name, dim, fingerprint }: EncoderFacts) {
    this.#thread = thread;
    this.name = name;
    this.dim = dim;
    this.fingerprint = fingerprint;
    forgotten.register(this, () => thread.close());
  }

  encodeQuery(text: string, cancel?: NativeCancel): Promise<RawEncoded | Failure> {
    return this.#thread.call("encodeQuery", [text], { cancel });
  }

  encodeDocuments(texts: string[], cancel?: NativeCancel): Promise<RawEncoded | Failure> {
    return this.#thread.call("encodeDocuments", [texts], { cancel });
  }
}

/** An engine on a thread of its own, or why there is none. */
async function start(
  at: Thread, { worker, ...options }: RawEngineOptions,
  made: (info: NativeEngine["info"], indexes: Indexes) => NativeEngine,
  gpu = false,
): Promise<NativeEngine | Failure> {
  const info = await at.call<NativeEngine["info"]>("start", [options]);
  if (!failed(info)) return made(info, new Indexes({ worker, ...options }, gpu));
  at.close();
  return info;
}

function startGpu(options: RawEngineOptions, hardware: boolean): Promise<NativeEngine | Failure> {
  const at = thread(GPU, { wasm: url.gpu(), hardware }, options.worker);
  const all = (): Promise<NativeEngine | Failure> => {
    const at = thread(GPU, { wasm: url.gpuAll(), all: true }, options.worker);
    return start(at, options, (info, indexes) => new Engine(at, info, indexes), true);
  };
  // An index knows whether another backend may take over.
  const asked: RawEngineOptions = hardware ? options : { ...options, backend: "wgpu" };
  return start(at, asked, (info, indexes) => new SearchEngine(at, info, indexes, all), true);
}

function startCpu(options: RawEngineOptions, passedOver?: PassedOver[]): Promise<NativeEngine | Failure> {
  const simd = hasSimd();
  const scalar = !simd || options.cpuLevel === "generic";
  const levels = simd ? ["simd128", "generic"] : ["generic"];
  const all = (): Promise<NativeEngine | Failure> => {
    const at = thread(CPU, { wasm: scalar ? url.cpuScalar() : url.cpuAll(), all: true }, options.worker);
    return start(at, options, (info, indexes) => new Engine(at, { ...info, levels, passedOver }, indexes));
  };
  // Browsers without vectors are few: one module is enough for them.
  if (scalar) return all();
  const at = thread(CPU, { wasm: url.cpu() }, options.worker);
  return start(at, options, (info, indexes) => new SearchEngine(at, { ...info, levels, passedOver }, indexes, all));
}

/** Threads without an engine: of the CPU's module with every operator, and of the other. */
const helpers = new Map<boolean, Thread>();
let idle: ReturnType<typeof setTimeout> | undefined;
let busy = 0;

/** A call that needs no engine; `all`: the module with every operator. */
async function help<T extends object>(name: string, args: unknown[], cancel?: NativeCancel, all = false): Promise<T | Failure> {
  const simd = hasSimd();
  all ||= !simd;
  const helper = helpers.get(all) ?? thread(CPU, { wasm: simd ? (all ? url.cpuAll() : url.cpu()) : url.cpuScalar(), all });
  helpers.set(all, helper);
  clearTimeout(idle);
  busy++;
  try {
    return await helper.call<T>(name, args, { cancel });
  } finally {
    if (--busy === 0) {
      idle = setTimeout(() => {
        for (const helper of helpers.values()) helper.close();
        helpers.clear();
      }, IDLE);
      // In Node, which has this method, nothing is to wait for it.
      (idle as { unref?(): void }).unref?.();
    }
  }
}

export const native: Native = {
  VERSION: __VERSION__,
  // Inputs are copied before a call returns.
  HOLD_BYTES: Infinity,

  async createEngine({ backend, tuning, ...options }) {
    if (tuning !== undefined) return untuned(backend ?? "wgpu and cpu");
    if (backend === "cpu" || (backend === undefined && options.cpuLevel !== undefined)) return startCpu(options);
    if (backend === "cuda") return unsupported("backend cuda", "browsers have wgpu and cpu");
    const hardware = backend === undefined;
    const gpu =
      hardware && webgpu() === undefined
        ? unsupported("backend wgpu", "this browser has no WebGPU here")
        : await startGpu(options, hardware);
    if (backend === "wgpu" || (failed(gpu) && gpu.code === "ERR_VALUE")) return gpu;
    if (!failed(gpu)) return new Preferring(gpu, () => startCpu(options), options.silent);
    // That there is no adapter is nothing unusual.
    if (gpu.code !== "ERR_UNSUPPORTED" && !options.silent) collect([`WebGPU is not used: ${gpu.message}`]);
    return startCpu(options, [{ backend: "wgpu", code: gpu.code, reason: gpu.message }]);
  },

  async createStaticEncoder(progress, cancel) {
    const at = thread(ENCODER, { wasm: url.encoder(), data: url.model() });
    const facts = await at.call<EncoderFacts>("start", [], { progress, cancel, undo: () => at.close() });
    if (!failed(facts)) return new Encoder(at, facts);
    at.close();
    return facts;
  },

  quantize: (x: RawTensor, dtype, scale, cancel) => help<RawQuantized>("quantize", [x, dtype, scale], cancel),
  dequantize: (x: RawTensor, scales, cancel) => help<RawResult>("dequantize", [x, scales], cancel),
  decodeResidualDocuments: (d, normalize, cancel) => help<RawResult>("decodeResidualDocuments", [d, normalize], cancel, true),
  createCancel: () => new Cancel(),
  takeWarnings: () => warnings.splice(0),
};

/** The package's version, written in when it is built. */
declare const __VERSION__: string;
