/** The native binding of `@maxsim/api` over threads. */
import type {
  Failure, Native, NativeCancel, NativeCorpus, NativeEncoder, NativeEngine, RawCodec, RawCorpusOptions, RawEncoded,
  RawEngineOptions, RawGradients, RawOp, RawPacked, RawPlan, RawQuantized, RawResidual, RawResidualCodes, RawResult, RawScores,
  RawTensor, RawTokens,
} from "@maxsim/api/binding";
import type { CorpusFacts } from "./module.js";
import { Cancel, elsewhere, here, type Thread } from "./thread.js";
import type { Load, Source } from "./service.js";

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
const ENCODER: Kind = {
  worker: () => new Worker(new URL("./encoder.worker.js", import.meta.url), { type: "module" }),
  load: () => import("./encoder.js"),
};

const url = {
  simd: () => new URL("./cpu-simd.wasm", import.meta.url).href,
  scalar: () => new URL("./cpu-scalar.wasm", import.meta.url).href,
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
    return failed(facts) ? facts : new Corpus(facts, drop);
  }
}

class Corpus implements NativeCorpus {
  readonly number: number;
  readonly count: number;
  readonly dim: number;
  readonly dtype: string;
  readonly bytes: number;
  #drop: ((number: number) => void) | undefined;

  constructor({ number, count, dim, dtype, bytes }: CorpusFacts, drop: (number: number) => void) {
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
    if (backend === "cuda" || backend === "wgpu") {
      const [what, hint] = [`backend ${backend}`, "this package has cpu"];
      return { code: "ERR_UNSUPPORTED", message: `${what} is not supported: ${hint}`, details: { what, hint } };
    }
    return startCpu(options, worker);
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
