/** What the WebAssembly modules export (`src/` of this package). Failures are thrown. */
import type { IndexInfo } from "@maxsim/api";
import type {
  NativeEngine, RawBatch, RawBuildOptions, RawBuildState, RawBytes, RawCodec, RawCorpusOptions, RawCount, RawEncoded,
  RawEngineOptions, RawGradients, RawHits, RawIds, RawIndexSearch, RawOp, RawPacked, RawPlan, RawQuantized, RawResidual,
  RawResidualCodes, RawResult, RawRows, RawScores, RawSelection, RawTensor, RawTokens,
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

/** The CPU's have what needs no engine, too; residual documents are decoded by the one with every operator. */
export interface CpuModule extends EngineModule {
  quantize?(x: RawTensor, dtype: string, scale?: string): RawQuantized;
  dequantize?(x: RawTensor, scales: Float32Array): RawResult;
  decodeResidualDocuments?(d: RawResidual, normalize?: boolean): RawResult;
}

/** The modules of indexes. What may be missing, those that only search have not. */
export interface PlaidModule extends Module {
  createEngine(options: RawEngineOptions): Promise<IndexEngine>;
  WasmFiles: {
    /** No files; `name` is for errors. */
    new (name: string): WasmFiles;
    /** The files of an index in one file, which `file` has read as `pack`. */
    unpack(name: string, file: WasmFiles): WasmFiles;
  };
}

export interface IndexEngine {
  openIndex(files: WasmFiles): WasmIndex;
  /** An index in a file of `size` bytes, of which `read(start, end)` promises parts; `progress` ends this by throwing. */
  openRemoteIndex?(
    name: string, size: number, read: (start: number, end: number) => Promise<Uint8Array>,
    progress: (loaded: number, total: number) => void,
  ): Promise<WasmRemoteIndex>;
  createBuild?(files: WasmFiles, options: RawBuildOptions): WasmBuild;
  free(): void;
}

/** The files of an index in the module's memory. */
export interface WasmFiles {
  /** Reads a file: `begin`, `fill` by and by (`false` where there is no room), `end`. */
  begin(name: string, length: number): void;
  fill(name: string, offset: number, bytes: Uint8Array): boolean;
  end(name: string): void;
  forget(name: string): void;
  names(): string[];
  /** Files that a manifest relies on. */
  needed(manifest: string): { name: string; length: number }[];
  /** Files to be written, in this order; to be removed if they have no length. */
  changes?(): { name: string; length?: number }[];
  /** A copy of a part of a file, or of all behind `start`. */
  read(name: string, start: number, end?: number): Uint8Array | undefined;
  /** The changes were made. */
  made?(): void;
  /** They were not. */
  revert?(): void;
  free(): void;
}

export interface WasmIndex {
  info(): IndexInfo;
  search(q: RawTokens, options: RawIndexSearch, poll?: Poll): Promise<RawHits>;
  add?(batch: RawBatch, replace: boolean, poll?: Poll): RawCount;
  delete?(which: RawSelection, poll?: Poll): RawCount;
  compact?(poll?: Poll): RawCount;
  refresh(): RawCount;
  /** Goes back to what the files hold. */
  reset?(): void;
  verify(): RawCount;
  pack(): RawBytes;
  metadata(ids: RawIds): RawRows;
  free(): void;
}

/** An index that reads residuals when searches need them. */
export interface WasmRemoteIndex {
  info(): IndexInfo;
  search(q: RawTokens, options: RawIndexSearch, poll?: Poll): Promise<RawHits>;
  metadata(ids: RawIds): RawRows;
  free(): void;
}

export interface WasmBuild {
  state(): RawBuildState;
  sample(documents: RawTokens, poll?: Poll): RawBuildState;
  train(poll?: Poll): RawBuildState;
  add(batch: RawBatch, poll?: Poll): RawBuildState;
  finish(): WasmIndex;
  free(): void;
}

export interface EncoderModule extends Module {
  createEncoder(model: Uint8Array): WasmEncoder;
}

/** The modules for searches have none of what may be missing. */
export interface WasmEngine {
  info(): NativeEngine["info"];
  run(op: RawOp, corpus?: number, poll?: Poll): Now<RawScores>;
  backward?(op: RawOp, poll?: Poll): Now<RawGradients>;
  explain(op: RawOp, corpus?: number): RawPlan;
  packPadded?(q: RawTokens, d: RawTokens): RawPacked;
  quantizeResidual?(x: RawTensor, codec: RawCodec, cutoffs: Float32Array, poll?: Poll): Now<RawResidualCodes>;
  corpus(documents: RawTokens, options: RawCorpusOptions, poll?: Poll): CorpusFacts;
  residualCorpus?(documents: RawResidual, poll?: Poll): CorpusFacts;
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
  readonly fingerprint: bigint;
  encodeQuery(text: string): RawEncoded;
  encodeDocuments(texts: string[], poll?: Poll): RawEncoded;
  free(): void;
}

/** A module's JavaScript: instantiates, and then has what the module exports. */
export type Glue<M extends Module> = M & {
  default(options: { module_or_path: Response }): Promise<unknown>;
};
