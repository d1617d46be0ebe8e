/**
 * What a native binding (napi addon, WebAssembly, worker) offers. Plain values in, plain values out, so that they can
 * cross a thread. Inputs have been normalised, but only Rust checks that they fit each other.
 */
import type {
  BlobLike, CpuLevel, EngineInfo, EngineOptions, EncoderIdentity, ErrorCode, ErrorDetails, FileHandleLike, IndexInfo,
  Plan, Precision,
} from "../index.js";

/** Tokens with every representation reduced to one. */
export interface RawTokens {
  /** What errors call this operand; empty where its fields stand alone. */
  name: string;
  /** The elements' bytes. */
  data: Uint8Array;
  dtype: string;
  /** Padded, or … */
  shape?: number[];
  /** … packed. */
  dim?: number;
  offsets?: Uint32Array;
  mask?: Uint8Array;
  lengths?: Uint32Array;
  scales?: Float32Array;
}

/** An array that is no batch of tokens: weights, tables, what a quantiser takes. */
export interface RawTensor {
  /** What errors call it. */
  name: string;
  /** The elements' bytes. */
  data: Uint8Array;
  dtype: string;
  shape: number[];
}

/** Centroid codes of documents, padded (`lengths`) or packed (`offsets`). */
export interface RawCodes {
  /** What errors call the documents. */
  name: string;
  codes: Uint32Array;
  lengths?: Uint32Array;
  offsets?: Uint32Array;
}

export interface RawCodec {
  /** What errors call it. */
  name: string;
  centroids: RawTensor;
  bucketWeights: Float32Array;
  nbits: number;
  layout: string;
}

/** Documents as codes and packed residuals. */
export interface RawResidual {
  codes: RawCodes;
  residuals: Uint8Array;
  codec: RawCodec;
  invNorms?: RawTensor;
}

export interface RawOptions {
  normalize?: boolean;
  argmax?: boolean;
  precision?: Precision;
  validateFinite?: boolean;
  topK?: number;
  chunk?: number;
  largest?: boolean;
  sorted?: boolean;
}

/**
 * An operator as a value: `q` with `d`, `residual` or a corpus; `q`, `h`, `w` and perhaps `b` for the fused head; `table`
 * and `codes` for scores from centroids alone.
 */
export interface RawOp {
  op: string;
  q?: RawTokens;
  d?: RawTokens;
  residual?: RawResidual;
  pairQIdx?: Uint32Array;
  pairDIdx?: Uint32Array;
  h?: RawTokens;
  w?: RawTensor;
  b?: RawTensor;
  table?: RawTensor;
  codes?: RawCodes;
  /** Makes it the gradients of `op`. */
  backward?: RawBackward;
  options: RawOptions;
}

export interface RawBackward {
  gradScores: Float32Array;
  argmax?: Int32Array;
  method?: string;
  wants?: string[];
}

/** A typed error as a value; results that can fail are `T | Failure`. */
export interface Failure {
  code: ErrorCode;
  message: string;
  details: ErrorDetails;
}

export interface RawScores {
  scores: Float32Array;
  shape: number[];
  indices?: Uint32Array;
  argmax?: Int32Array;
  argmaxShape?: number[];
  argmaxOffsets?: Uint32Array;
}

/** An array in the class that holds its type; f16 and bf16 as `Uint16Array`. */
export interface RawResult {
  data: Float32Array | Uint16Array | Uint8Array | Int8Array;
  dtype: string;
  shape: number[];
}

export interface RawGradients {
  q?: RawResult;
  d?: RawResult;
  h?: RawResult;
  w?: RawResult;
  b?: RawResult;
}

export interface RawQuantized {
  values: RawResult;
  scales: Float32Array;
}

export interface RawResidualCodes {
  codes: Uint32Array;
  residuals: Uint8Array;
  invNorms: Float32Array;
}

export interface RawPacked {
  q: RawPackedTokens;
  d: RawPackedTokens;
  pairQIdx: Uint32Array;
  pairDIdx: Uint32Array;
}

export interface RawPackedTokens {
  data: Float32Array | Uint16Array;
  dtype: string;
  dim: number;
  offsets: Uint32Array;
}

export interface RawPlan extends Omit<Plan, "choices"> {
  choices: [string, string][];
}

export interface RawTuning {
  table: string;
}

export interface RawCorpusOptions {
  storage?: string;
  normalize?: boolean;
  validateFinite?: boolean;
}

/** Asks work to stop; it then fails with code `ERR_ABORTED`, which never reaches users. */
export interface NativeCancel {
  cancel(): void;
}

export interface NativeEngine {
  readonly info: Omit<EngineInfo, "version">;
  run(op: RawOp, corpus?: NativeCorpus, cancel?: NativeCancel): Promise<RawScores | Failure>;
  backward(op: RawOp, cancel?: NativeCancel): Promise<RawGradients | Failure>;
  packPadded(q: RawTokens, d: RawTokens, cancel?: NativeCancel): Promise<RawPacked | Failure>;
  quantizeResidual(
    x: RawTensor, codec: RawCodec, cutoffs: Float32Array, cancel?: NativeCancel,
  ): Promise<RawResidualCodes | Failure>;
  explain(op: RawOp, corpus?: NativeCorpus): Promise<RawPlan | Failure>;
  tuning(): Promise<RawTuning | Failure>;
  corpus(documents: RawTokens, options: RawCorpusOptions, cancel?: NativeCancel): Promise<NativeCorpus | Failure>;
  residualCorpus(documents: RawResidual, cancel?: NativeCancel): Promise<NativeCorpus | Failure>;
  openIndex(
    source: RawIndexSource, lazy: boolean, progress?: (loaded: number, total: number) => void, cancel?: NativeCancel,
  ): Promise<NativeIndex | Failure>;
  createBuild(path: string | FileHandleLike, options: RawBuildOptions): Promise<NativeBuild | Failure>;
  dispose(): void;
}

export interface NativeCorpus {
  readonly count: number;
  readonly dim: number;
  readonly dtype: string;
  readonly bytes: number;
  dispose(): void;
}

/** A path or URL, the bytes of a file, or what only browsers have. */
export type RawIndexSource = string | Uint8Array | FileHandleLike | BlobLike;

/** Ids of one kind. */
export interface RawIds {
  numbers?: BigUint64Array;
  texts?: string[];
}

/** A named value; null if it has none. */
export interface RawValue {
  name: string;
  bool?: boolean;
  int?: bigint;
  float?: number;
  text?: string;
}

export interface RawBatch {
  documents: RawTokens;
  ids?: RawIds;
  metadata?: RawValue[][];
}

export interface RawBuildOptions {
  ids?: string;
  nbits?: number;
  centroids?: number;
  iterations?: number;
  seed?: number;
  replace?: boolean;
  source?: string;
  encoder?: EncoderIdentity;
}

export interface RawSelection {
  filter?: string;
  parameters?: RawValue[];
  ids?: RawIds;
}

export interface RawIndexSearch {
  topK: number;
  nIvfProbe?: number;
  nFullScores?: number;
  centroidScoreThreshold?: number;
  exact?: boolean;
  normalize?: boolean;
  explain?: boolean;
  precision?: Precision;
  which: RawSelection;
}

/** Hits of query `i` are `offsets[i]` to `offsets[i + 1]`; winners have a row per hit. */
export interface RawHits {
  ids: RawIds;
  scores: Float32Array;
  offsets: Uint32Array;
  winners?: Int32Array;
}

/** How many documents something was about. */
export interface RawCount {
  count: number;
}

export interface RawBytes {
  bytes: Uint8Array;
}

/** Metadata of several documents. */
export interface RawRows {
  rows: (RawValue[] | null)[];
}

/** Changes are committed one at a time; one that fails leaves nothing behind. */
export interface NativeIndex {
  info(): IndexInfo;
  search(q: RawTokens, options: RawIndexSearch, cancel?: NativeCancel): Promise<RawHits | Failure>;
  add(batch: RawBatch, replace: boolean, cancel?: NativeCancel): Promise<RawCount | Failure>;
  delete(which: RawSelection, cancel?: NativeCancel): Promise<RawCount | Failure>;
  compact(cancel?: NativeCancel): Promise<RawCount | Failure>;
  refresh(): Promise<RawCount | Failure>;
  verify(): Promise<RawCount | Failure>;
  pack(): Promise<RawBytes | Failure>;
  metadata(ids: RawIds): Promise<RawRows | Failure>;
  dispose(): void;
}

export interface RawBuildState {
  trained: boolean;
  documents: number;
  tokens: number;
  done: number;
}

/** A build; its methods are called one after the other. */
export interface NativeBuild {
  state(): Promise<RawBuildState | Failure>;
  sample(documents: RawTokens, cancel?: NativeCancel): Promise<RawBuildState | Failure>;
  train(cancel?: NativeCancel): Promise<RawBuildState | Failure>;
  add(batch: RawBatch, cancel?: NativeCancel): Promise<RawBuildState | Failure>;
  finish(): Promise<NativeIndex | Failure>;
  dispose(): void;
}

export interface Native {
  /** Version of maxsim. */
  readonly VERSION: string;
  /** Inputs of at least so many bytes are read in place while a call runs. */
  readonly HOLD_BYTES: number;
  createEngine(options: RawEngineOptions): Promise<NativeEngine | Failure>;
  createStaticEncoder(
    progress?: (loaded: number, total: number) => void, cancel?: NativeCancel,
  ): Promise<NativeEncoder | Failure>;
  quantize(
    x: RawTensor, dtype: "fp8" | "int8", scale?: "token" | "tensor", cancel?: NativeCancel,
  ): Promise<RawQuantized | Failure>;
  dequantize(x: RawTensor, scales: Float32Array, cancel?: NativeCancel): Promise<RawResult | Failure>;
  decodeResidualDocuments(d: RawResidual, normalize?: boolean, cancel?: NativeCancel): Promise<RawResult | Failure>;
  createCancel(): NativeCancel;
  /** One-time warnings since the last call. */
  takeWarnings(): string[];
}

export interface NativeEncoder {
  readonly name: string;
  readonly dim: number;
  readonly fingerprint: bigint;
  encodeQuery(text: string, cancel?: NativeCancel): Promise<RawEncoded | Failure>;
  encodeDocuments(texts: string[], cancel?: NativeCancel): Promise<RawEncoded | Failure>;
}

export interface RawEncoded {
  vectors: Float32Array;
  offsets: Uint32Array;
  spans: Uint32Array;
}

export interface RawEngineOptions extends Omit<EngineOptions, "cpuLevel"> {
  cpuLevel?: CpuLevel;
}
