/** What the WebAssembly modules export (`src/` of this package). Failures are thrown. */
import type {
  NativeEngine, RawCodec, RawCorpusOptions, RawEncoded, RawEngineOptions, RawGradients, RawOp, RawPacked, RawPlan, RawQuantized,
  RawResidual, RawResidualCodes, RawResult, RawScores, RawTensor, RawTokens,
} from "@maxsim/api/binding";

/** Says whether a call should stop; asked while it runs. */
export type Poll = () => boolean;
type Now<T> = T | Promise<T>;

/** What every module has. */
export interface Module {
  version(): string;
  takeWarnings(): string[];
  /** Bytes whose allocation failed since the last call; 0 if none did. */
  takeRefused(): number;
}

/** A module with an engine. */
export interface EngineModule extends Module {
  createEngine(options: RawEngineOptions): Now<WasmEngine>;
}

/** The CPU's has what needs no engine, too. */
export interface CpuModule extends EngineModule {
  quantize(x: RawTensor, dtype: string, scale?: string): RawQuantized;
  dequantize(x: RawTensor, scales: Float32Array): RawResult;
  decodeResidualDocuments(d: RawResidual, normalize?: boolean): RawResult;
}

export interface EncoderModule extends Module {
  createEncoder(model: Uint8Array): WasmEncoder;
}

export interface WasmEngine {
  info(): NativeEngine["info"];
  run(op: RawOp, corpus?: number, poll?: Poll): Now<RawScores>;
  backward(op: RawOp, poll?: Poll): Now<RawGradients>;
  explain(op: RawOp, corpus?: number): RawPlan;
  packPadded(q: RawTokens, d: RawTokens): RawPacked;
  quantizeResidual(x: RawTensor, codec: RawCodec, cutoffs: Float32Array, poll?: Poll): Now<RawResidualCodes>;
  corpus(documents: RawTokens, options: RawCorpusOptions, poll?: Poll): CorpusFacts;
  residualCorpus(documents: RawResidual, poll?: Poll): CorpusFacts;
  dropCorpus(number: number): void;
  free(): void;
}

export interface CorpusFacts {
  /** What the engine knows it by. */
  readonly number: number;
  readonly count: number;
  readonly dim: number;
  readonly dtype: string;
  readonly bytes: number;
}

export interface WasmEncoder {
  readonly name: string;
  readonly dim: number;
  encodeQuery(text: string): RawEncoded;
  encodeDocuments(texts: string[], poll?: Poll): RawEncoded;
  free(): void;
}

/** A module's JavaScript: instantiates, and then has what the module exports. */
export type Glue<M extends Module> = M & {
  default(options: { module_or_path: Response }): Promise<unknown>;
};
