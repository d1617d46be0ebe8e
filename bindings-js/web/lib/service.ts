/**
 * What a thread that has a module is asked to do: functions over plain values, by name, so that it does not matter which
 * thread that is.
 */
import type {
  Failure, RawCodec, RawCorpusOptions, RawEngineOptions, RawOp, RawResidual, RawTensor, RawTokens,
} from "@maxsim/api/binding";
import type { CpuModule, EncoderModule, Glue, Module, Poll, WasmEncoder, WasmEngine } from "./module.js";

/** Where a module, and the data it may need, lie. */
export interface Source {
  wasm: string;
  /** The encoder's model. */
  data?: string;
  /** Whether it does without SIMD, where that makes a difference to its JavaScript. */
  scalar?: boolean;
  /** Whether indexes are searched on a GPU. */
  gpu?: boolean;
  /** Whether the module has every operator of a backend, or changes indexes too. */
  all?: boolean;
  /** Whether a GPU that is a program on the CPU is none. */
  hardware?: boolean;
}

export type Progress = (loaded: number, total: number) => void;

/** What a call may use besides its arguments. */
export interface Context {
  poll?: Poll;
  progress?: Progress;
}

/** A thread's functions. They throw {@link Failure}s and whatever else goes wrong. */
export interface Service {
  readonly module: Module;
  readonly calls: Record<string, (context: Context, ...args: never[]) => unknown>;
  /** Frees what the calls have made. */
  close(): void;
}

/** Makes a service. */
export type Load = (source: Source) => Promise<Service>;

export const failure = (code: Failure["code"], message: string, details: Failure["details"] = {}): Failure => ({
  code, message, details,
});

export const unsupported = (what: string, hint: string): Failure =>
  failure("ERR_UNSUPPORTED", `${what} is not supported: ${hint}`, { what, hint });

/** The bytes at `url`, or a failure. */
export async function download(url: string, options?: RequestInit): Promise<Response> {
  let problem: string;
  try {
    const response = await fetch(url, options);
    if (response.ok) return response;
    problem = `HTTP status ${response.status}`;
  } catch (error) {
    problem = (error as Error).message;
  }
  throw failure("ERR_IO", `${url}: ${problem}`, { what: url, problem });
}

/** Instantiates a module. */
export async function instantiate<M extends Module>(glue: Glue<M>, { wasm }: Source): Promise<M> {
  await glue.default({ module_or_path: await download(wasm) });
  return glue;
}

/** Whatever was thrown, as a failure. */
export function failureOf(thrown: unknown, module?: Module): Failure {
  const { code, message, details } = thrown as Partial<Failure>;
  if (code !== undefined && details !== undefined) return { code, message: message ?? "", details };
  const requested = module?.takeRefused();
  if (requested) return failure("ERR_OUT_OF_MEMORY", `out of memory: ${requested} bytes requested`, { requested });
  // With this, array buffers and pages of WebAssembly are refused.
  if (thrown instanceof RangeError) return failure("ERR_OUT_OF_MEMORY", `out of memory: ${thrown.message}`);
  return failure("ERR_INTERNAL", `maxsim failed in a way it should not: ${thrown}`);
}

/** The calls of one engine. */
export function engineService(module: CpuModule): Service {
  let engine: WasmEngine | undefined;
  const started = (): WasmEngine => {
    if (engine === undefined) throw failure("ERR_DISPOSED", "engine was disposed", { what: "engine" });
    return engine;
  };
  return {
    module,
    calls: {
      async start(_, options: RawEngineOptions) {
        engine = await module.createEngine(options);
        return { ...engine.info(), version: module.version() };
      },
      run: ({ poll }, op: RawOp, corpus?: number) => started().run(op, corpus, poll),
      backward: ({ poll }, op: RawOp) => started().backward!(op, poll),
      explain: (_, op: RawOp, corpus?: number) => started().explain(op, corpus),
      packPadded: (_, q: RawTokens, d: RawTokens) => started().packPadded!(q, d),
      quantizeResidual: ({ poll }, x: RawTensor, codec: RawCodec, cutoffs: Float32Array) =>
        started().quantizeResidual!(x, codec, cutoffs, poll),
      corpus: ({ poll }, documents: RawTokens, options: RawCorpusOptions) => started().corpus(documents, options, poll),
      residualCorpus: ({ poll }, documents: RawResidual) => started().residualCorpus!(documents, poll),
      dropCorpus: (_, number: number) => started().dropCorpus(number),
      quantize: (_, x: RawTensor, dtype: string, scale?: string) => module.quantize!(x, dtype, scale),
      dequantize: (_, x: RawTensor, scales: Float32Array) => module.dequantize!(x, scales),
      decodeResidualDocuments: (_, d: RawResidual, normalize?: boolean) => module.decodeResidualDocuments!(d, normalize),
    },
    close() {
      engine?.free();
      engine = undefined;
    },
  };
}

/** The calls of one encoder. */
export function encoderService(module: EncoderModule, { data }: Source): Service {
  let encoder: WasmEncoder | undefined;
  return {
    module,
    calls: {
      async start({ progress }) {
        encoder = module.createEncoder(await body(await download(data!), progress));
        const { name, dim, fingerprint } = encoder;
        return { name, dim, fingerprint };
      },
      encodeQuery: (_, text: string) => encoder!.encodeQuery(text),
      encodeDocuments: ({ poll }, texts: string[]) => encoder!.encodeDocuments(texts, poll),
    },
    close() {
      encoder?.free();
      encoder = undefined;
    },
  };
}

/** The bytes of a response, told about as they come. */
async function body(response: Response, progress?: Progress): Promise<Uint8Array> {
  if (progress === undefined || response.body === null) return new Uint8Array(await response.arrayBuffer());
  const length = Number(response.headers.get("content-length"));
  const chunks: Uint8Array[] = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    loaded += value.length;
    // Of a compressed response the length is that of fewer bytes.
    progress(loaded, Math.max(length, loaded));
  }
  const bytes = new Uint8Array(loaded);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
