/** The native binding of `@maxsim/api` over threads. */
import type {
  Failure, Native, NativeCancel, NativeCorpus, NativeEncoder, NativeEngine, RawCodec, RawCorpusOptions, RawEncoded,
  RawEngineOptions, RawGradients, RawOp, RawPacked, RawPlan, RawQuantized, RawResidual, RawResidualCodes, RawResult, RawScores,
  RawTensor, RawTokens,
} from "@maxsim/api/binding";
import type { CorpusFacts } from "./module.js";
import { Cancel, elsewhere, here, type Thread } from "./thread.js";
import { failure, type Load, type Source } from "./service.js";
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

const url = {
  simd: () => new URL("./cpu-simd.wasm", import.meta.url).href,
  scalar: () => new URL("./cpu-scalar.wasm", import.meta.url).href,
  gpu: () => new URL("./gpu.wasm", import.meta.url).href,
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

/** Frees what users forget to. */
const forgotten = new FinalizationRegistry<() => void>((free) => free());

class Engine implements NativeEngine {
  readonly info: NativeEngine["info"];
  readonly #thread: Thread;

  constructor(thread: Thread, info: NativeEngine["info"]) {
    this.#thread = thread;
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

class Encoder implements NativeEncoder {
  readonly name: string;
  readonly dim: number;
  readonly #thread: Thread;

  constructor(thread: Thread, { name, dim }: { name: string; dim: number }) {
    this.#thread = thread;
    this.name = name;
    this.dim = dim;
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
async function start(at: Thread, options: RawEngineOptions, levels?: string[]): Promise<NativeEngine | Failure> {
  const info = await at.call<NativeEngine["info"]>("start", [options]);
  if (!failed(info)) return new Engine(at, levels === undefined ? info : { ...info, levels });
  at.close();
  return info;
}

function startCpu(options: RawEngineOptions, worker?: boolean): Promise<NativeEngine | Failure> {
  const simd = hasSimd();
  const scalar = !simd || options.cpuLevel === "generic";
  const levels = simd ? ["simd128", "generic"] : ["generic"];
  return start(thread(CPU, { wasm: scalar ? url.scalar() : url.simd() }, worker), options, levels);
}

let helper: Thread | undefined;
let idle: ReturnType<typeof setTimeout> | undefined;
let busy = 0;

/** A call that needs no engine. */
async function help<T extends object>(name: string, args: unknown[], cancel?: NativeCancel): Promise<T | Failure> {
  helper ??= thread(CPU, { wasm: hasSimd() ? url.simd() : url.scalar() });
  clearTimeout(idle);
  busy++;
  try {
    return await helper.call<T>(name, args, { cancel });
  } finally {
    if (--busy === 0) {
      idle = setTimeout(() => {
        helper?.close();
        helper = undefined;
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

  async createEngine({ backend, worker, ...options }) {
    const cpu = (): Promise<NativeEngine | Failure> => startCpu(options, worker);
    if (backend === "cpu" || (backend === undefined && (options.cpuLevel !== undefined || webgpu() === undefined))) return cpu();
    if (backend === "cuda") {
      const [what, hint] = ["backend cuda", "browsers have wgpu and cpu"];
      return failure("ERR_UNSUPPORTED", `${what} is not supported: ${hint}`, { what, hint });
    }
    const gpu = await start(thread(GPU, { wasm: url.gpu() }, worker), options);
    if (backend === "wgpu" || (failed(gpu) && gpu.code === "ERR_VALUE")) return gpu;
    if (!failed(gpu)) return new Preferring(gpu, cpu, options.silent);
    // That there is no adapter is nothing unusual.
    if (gpu.code !== "ERR_UNSUPPORTED" && !options.silent) collect([`WebGPU is not used: ${gpu.message}`]);
    return cpu();
  },

  async createStaticEncoder(progress, cancel) {
    const at = thread(ENCODER, { wasm: url.encoder(), data: url.model() });
    const facts = await at.call<{ name: string; dim: number }>("start", [], { progress, cancel, undo: () => at.close() });
    if (!failed(facts)) return new Encoder(at, facts);
    at.close();
    return facts;
  },

  quantize: (x: RawTensor, dtype, scale, cancel) => help<RawQuantized>("quantize", [x, dtype, scale], cancel),
  dequantize: (x: RawTensor, scales, cancel) => help<RawResult>("dequantize", [x, scales], cancel),
  decodeResidualDocuments: (d, normalize, cancel) => help<RawResult>("decodeResidualDocuments", [d, normalize], cancel),
  createCancel: () => new Cancel(),
  takeWarnings: () => warnings.splice(0),
};

/** The package's version, written in when it is built. */
declare const __VERSION__: string;
