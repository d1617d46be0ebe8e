/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The JavaScript surface of maxsim. `@maxsim/node` and `@maxsim/web` both implement {@link Api}, so nothing here
 * names anything that only one platform has.
 *
 * Notation: `Nq` queries, `Nd` documents, `Lq`/`Ld` tokens, `d` embedding dimension, `K` candidates per query,
 * `C` centroids, `T` tokens of a packed batch. Arrays are row-major. Scores are f32:
 * `score(i, j) = Σ_s max_t ⟨Q[i,s], D[j,t]⟩` over kept tokens. A query token without a kept document token adds 0,
 * a NaN similarity never wins, and nothing is floored at 0.
 *
 * @module
 */
import type { ErrorCode, MaxSimError } from "./error.js";

export { MaxSimError } from "./error.js";
export type { ErrorCode, ErrorDetails } from "./error.js";

/** What a package exports. */
export interface Api {
  /**
   * Sets a backend up.
   *
   * @throws {MaxSimError} `ERR_UNSUPPORTED` for a backend or SIMD level that this package or machine lacks, or if the
   * package has no binary for this platform; `ERR_VALUE` for an unknown option or value.
   */
  createEngine(options?: EngineOptions): Promise<Engine>;

  /** The package's English encoder: text to token vectors without a model from elsewhere. */
  createStaticEncoder(options?: LoadOptions): Promise<StaticEncoder>;

  /**
   * fp8 (e4m3fn) bytes of `x [.., d]`, f32, f16 or bf16: `x / s` with `s = max(|x|max, 1e-6) / 448`, nearest-even.
   * The bytes and scales are the same on every backend, and with `dim` or `shape` they are {@link TokensInput}.
   *
   * @throws {MaxSimError} `ERR_NON_FINITE` (`details.position`) for NaN or infinity anywhere in `x`, `ERR_DTYPE` for
   * quantised data, `ERR_SHAPE` or `ERR_VALUE` for arguments that do not fit.
   */
  quantizeFp8(x: TensorInput, options?: QuantizeOptions): Promise<QuantizedTensor>;

  /** int8: `x / s` with `s = max(|x|max, 1e-6) / 127`, nearest-even. Otherwise like {@link quantizeFp8}. */
  quantizeInt8(x: TensorInput, options?: QuantizeOptions): Promise<QuantizedTensor>;

  /**
   * Stored value × scale as f32, in the shape of `x`.
   *
   * @throws {MaxSimError} `ERR_DTYPE` for data that is not quantised, `ERR_SHAPE` for another number of scales than one
   * or one per vector.
   */
  dequantize(x: QuantizedInput, options?: CallOptions): Promise<Tensor>;

  /**
   * Vectors of residual documents as f32, `[Nd, L, d]` padded or `[T, d]` packed; slots behind a length are zero.
   *
   * @throws {MaxSimError} `ERR_SHAPE`, `ERR_VALUE` (`d.nbits`, `d.layout`) or `ERR_INDEX` (`d.codes`) for documents that
   * do not fit together.
   */
  decodeResidual(d: ResidualInput, options?: DecodeOptions): Promise<Tensor>;

  MaxSimError: typeof MaxSimError;
}

/** Options of {@link Api.createEngine}. */
export interface EngineOptions {
  /**
   * `"auto"` (default) takes the best backend there is; one asked for by name is used or refused.
   * The environment variable `MAXSIM_BACKEND`, where there are any, steps in for `"auto"`.
   */
  backend?: "auto" | BackendKind;
  /** CPU threads, at least 1. Default: one per core. */
  threads?: number;
  /** SIMD level of the CPU backend. Default: the best this machine runs. */
  cpuLevel?: CpuLevel;
  /** Capability tier of the GPU; one that it does not run is refused by `backend: "wgpu"`. Default: the best there is. */
  gpuTier?: GpuTier;
  /** Bytes of GPU memory that documents and scratch may take together. Default: as much as there is. */
  gpuMemory?: number;
  /**
   * What was measured on such a GPU, as {@link Engine.exportTuning} or `maxsim tune` gives it: which of the kernels that give the
   * same bits is the fastest. CUDA alone has any to choose between; engines on anything else refuse it (`ERR_UNSUPPORTED`). Text that
   * is no table is `ERR_FORMAT`. Default: that of the environment variable `MAXSIM_CUDA_TUNING`, else what is known of the GPU.
   */
  tuning?: string;
  /** No one-time warnings. Default false. */
  silent?: boolean;
  /**
   * In browsers, whether to compute on a worker that the engine owns (default true). On the calling thread, where `false`
   * leads, the CPU keeps that thread busy until a call is done. Elsewhere it changes nothing: Node never computes on its
   * event loop.
   */
  worker?: boolean;
}

export type BackendKind = "cpu" | "wgpu" | "cuda";
export type CpuLevel =
  | "avx512-vnni" | "avx512" | "avx2-vnni" | "avx2" | "neon-dot" | "neon" | "simd128" | "generic";

/** What kernels may use: what every GPU has, 16-bit floats, subgroups, matrix units. Browsers offer the first two. */
export type GpuTier = "portable" | "f16" | "subgroup" | "coop";

/** Facts about an engine's backend. */
export interface EngineInfo {
  readonly backend: BackendKind;
  /** CPU model or GPU. */
  readonly device: string;
  /** SIMD level, capability tier or architecture in use. */
  readonly level: string;
  /** Levels this machine runs, best first. */
  readonly levels: readonly string[];
  /** CPU threads; 0 on a GPU. */
  readonly threads: number;
  /** Version of maxsim. */
  readonly version: string;
  /** In browsers, if `backend` was left open: what would have been taken before this, and why it was not. */
  readonly passedOver?: readonly PassedOver[];
}

/** A backend that `backend: "auto"` did not take. */
export interface PassedOver {
  readonly backend: BackendKind;
  /** `ERR_UNSUPPORTED` where there is no GPU, or only one that is a program on the CPU. */
  readonly code: ErrorCode;
  /** For people. */
  readonly reason: string;
}

/**
 * Element type. `"fp8"` (e4m3fn) and `"int8"` need `scales`.
 */
export type DType = "f32" | "f16" | "bf16" | "fp8" | "int8";

/** `Float16Array`, described by its structure: not every runtime and not every TypeScript library has it. */
export interface Float16ArrayLike {
  readonly [Symbol.toStringTag]: "Float16Array";
  readonly buffer: ArrayBufferLike;
  readonly byteLength: number;
  readonly byteOffset: number;
  readonly length: number;
}

/**
 * Token vectors. Without a `dtype`: `Float32Array` is f32, `Float16Array` f16, `Int8Array` int8, `Uint8Array` fp8.
 * `Uint16Array` needs one, `"f16"` or `"bf16"`.
 */
export type TokenData = Float32Array | Uint16Array | Float16ArrayLike | Uint8Array | Int8Array;

/** Non-negative integers of any width; the values have to fit 32 bits. */
export type IntegerArray =
  | Uint32Array
  | Int32Array
  | Uint16Array
  | Int16Array
  | Uint8Array
  | Int8Array
  | BigInt64Array
  | BigUint64Array
  | readonly number[]
  | readonly bigint[];

/**
 * A batch of token sequences, in one of three forms:
 * - padded: `data` and `shape`, `[L, d]` (one sequence; results have no axis for it), `[N, L, d]`, or as candidates
 *   `[N, K, L, d]`; `lengths` and `mask` say which tokens count;
 * - packed: `data` `[T, d]`, `dim` and `offsets`;
 * - one sequence: `data` `[L, d]` and `dim`.
 *
 * Inputs are not copied from 64 KiB up: leave them alone (no writing, no transfer to a worker) until the Promise
 * settles. Data in a `SharedArrayBuffer` is refused.
 */
export interface TokensInput {
  data: TokenData;
  /** Element type of `data`. */
  dtype?: DType;
  shape?: readonly number[];
  /** Embedding dimension `d`, at least 1. */
  dim?: number;
  /** `[N + 1]`, from 0 to `T`, never decreasing: sequence `i` has the rows `offsets[i]` to `offsets[i + 1]`. */
  offsets?: IntegerArray;
  /** One entry per token slot (`[.., L]` or `[T]`); true or non-zero keeps the token. */
  mask?: Uint8Array | readonly boolean[];
  /** Tokens that count, per padded sequence; what lies behind is not read. `[N]` or `[N, K]` flat. */
  lengths?: IntegerArray;
  /** Of fp8 and int8 data, finite and positive: one for all tokens, or one per token slot. Token = value × scale. */
  scales?: number | Float32Array | readonly number[];
}

/**
 * Queries: a bare typed array is one query `[Lq, d]` where the documents, a {@link Corpus} or {@link ResidualInput}, say
 * what `d` is.
 */
export type QueryInput = TokensInput | TokenData;

/** Documents: tokens or residual documents of this call, or a corpus of the same engine. */
export type DocumentsInput = TokensInput | ResidualInput | Corpus;

/**
 * An array that is no batch of tokens: `data` in `shape`, or in `[elements / dim, dim]`; with neither, and as a bare
 * typed array, a vector. Memory is treated as that of {@link TokensInput}.
 */
export interface TensorInput {
  data: TokenData;
  /** Element type of `data`. */
  dtype?: DType;
  shape?: readonly number[];
  /** Last extent. */
  dim?: number;
}

/** An array as results have it: valid as {@link TensorInput}, and with rank 2 to 4 as {@link TokensInput}. */
export interface Tensor {
  /** f16 and bf16 as `Uint16Array`. */
  readonly data: Float32Array | Uint16Array;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Codes of documents, padded `[Nd, L]` with `lengths` or packed `[T]` with `offsets`. */
export interface CodesInput {
  /** Centroid of every token, below `C`. What stands behind a length is not looked at. */
  codes: IntegerArray;
  /** `[Nd]`, tokens that count; `L` follows from the number of codes. */
  lengths?: IntegerArray;
  /** `[Nd + 1]`, from 0 to `T`, never decreasing. */
  offsets?: IntegerArray;
}

/**
 * Order of the bits in packed residuals. `"plaid"` is what ColBERTv2, PyLate, fast-plaid and next-plaid store: the bits
 * of each field least-significant first, packed into bytes most-significant bit first. `"lik"`, of
 * late-interaction-kernels: field `j` of a byte at bits `j · nbits`. One is the other with the bits of every byte reversed.
 */
export type ResidualLayout = "plaid" | "lik";

/** Centroids and buckets of residual documents. */
export interface ResidualCodec {
  /** `[C, d]`, f32, f16 or bf16. */
  centroids: TensorInput;
  /** `[2^nbits]`: what a bucket adds to its centroid's component. */
  bucketWeights: Float32Array | readonly number[];
  /** Bits per dimension: 1, 2, 4 or 8. */
  nbits: number;
  /** No default: residuals read in the wrong order look plausible and are wrong. */
  layout: ResidualLayout;
}

/**
 * PLAID / ColBERTv2 documents (Santhanam et al., 2022): token = `centroids[code] + bucketWeights[bucket]`. They want to be
 * normalised, which {@link Engine.maxsimResidual}, `retrieve`, `scorer` and corpora do unless told not to.
 */
export interface ResidualInput extends CodesInput, ResidualCodec {
  /** `⌈d · nbits / 8⌉` bytes per code. */
  residuals: Uint8Array;
  /** Stored `1 / ‖token‖` per code, f32 or f16; used where tokens are normalised. Default: computed. */
  invNorms?: TensorInput | TokenData;
}

/** How an `AbortSignal` looks from here. */
export interface AbortSignalLike {
  readonly aborted: boolean;
  readonly reason: unknown;
  addEventListener(type: "abort", listener: () => void): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

/** Options of every call that takes time. */
export interface CallOptions {
  /**
   * Stops the call, which then rejects with `signal.reason`, as soon as nothing reads its inputs any more.
   */
  signal?: AbortSignalLike;
}

/**
 * - `"default"`: like `"exact"` for f32; 16-bit inputs are never rounded further.
 * - `"exact"`: f32 products and sums.
 * - `"fast"`: f32 inputs may be rounded to 16 bit.
 * - `"int8"`: integer arithmetic on quantised inputs.
 */
export type Precision = "default" | "exact" | "fast" | "int8";

/** Options of the scoring operators. */
export interface ScoreOptions extends CallOptions {
  /** Divide every token by `max(‖x‖₂, 1e-6)`. Default false. */
  normalize?: boolean;
  /** Also return which document token won each query token. Default false. */
  argmax?: boolean;
  /** Default `"default"`. */
  precision?: Precision;
  /**
   * Reject NaN and infinity in tokens that count with `ERR_NON_FINITE`. A corpus has to have been made with it (else `ERR_VALUE`),
   * or be quantised. Default false.
   */
  validateFinite?: boolean;
}

/**
 * Which document token won each query token: document-local, the lowest index among equals, −1 where a row has no
 * winner or is masked.
 */
export interface Winners {
  /** One row of winners per score, in the order of the scores. */
  readonly argmax?: Int32Array;
  /** Shape of `argmax`: that of the scores, then `Lq`. Absent for packed queries, whose rows differ in length. */
  readonly argmaxShape?: readonly number[];
  /** For packed queries: row `p` is `argmax[argmaxOffsets[p]]` to `argmax[argmaxOffsets[p + 1]]`. */
  readonly argmaxOffsets?: Uint32Array;
}

/** Result of a scoring operator. */
export interface Scores extends Winners {
  readonly scores: Float32Array;
  /** Shape of `scores`; `[]` is a single number. */
  readonly shape: readonly number[];
}

/** Result of a search: best first, lower index first among equals. */
export interface TopK extends Winners {
  /** `[Nq, k]`, or `[k]` for one query; `k = min(topK, Nd)`. */
  readonly scores: Float32Array;
  /** Documents, same shape. */
  readonly indices: Uint32Array;
  /** Shape of `scores` and `indices`. */
  readonly shape: readonly number[];
}

/** Options of {@link Corpus.search}. */
export interface SearchOptions extends CallOptions {
  /** Results per query, at least 1. */
  topK: number;
  /** Also return `argmax` `[Nq, k, Lq]` (`[k, Lq]` for one query) of the hits. Default false. */
  explain?: boolean;
  /** Documents scored at a time, at least 1: bounds peak memory, never changes the result. */
  chunk?: number;
  /** Highest scores first. Default true. */
  largest?: boolean;
  /** Results in order. `false` allows any order of the same set. Default true. */
  sorted?: boolean;
  /** Default `"default"`. */
  precision?: Precision;
}

/** Options of {@link Engine.retrieve}. */
export interface RetrieveOptions extends SearchOptions {
  /** Default true, other than in the scoring operators. */
  normalize?: boolean;
  /** Reject NaN and infinity in tokens that count with `ERR_NON_FINITE`. Default false. */
  validateFinite?: boolean;
}

/** Documents for {@link Engine.corpus} and how to keep them. */
export interface CorpusInput extends TokensInput, CallOptions {
  /**
   * Convert to this type. `dtype` describes `data`, `storage` what is kept; `"fp8"` and `"int8"` get a scale per token
   * and need finite tokens. Default: as `data`.
   */
  storage?: DType;
  /**
   * Normalise the documents once, now, and queries at search time. Default true; quantised data cannot be normalised
   * and needs `false`.
   */
  normalize?: boolean;
  /** Reject NaN and infinity with `ERR_NON_FINITE`. Default false. */
  validateFinite?: boolean;
}

/** Residual documents for {@link Engine.corpus}; kept as they are, normalised when searched. */
export interface ResidualCorpusInput extends ResidualInput, CallOptions {}

/** Packed tokens, as {@link Engine.packPadded} returns them: valid as {@link TokensInput}. */
export interface PackedTokens {
  /** `[T, d]`, in the type of the input; f16 and bf16 as `Uint16Array`. */
  readonly data: Float32Array | Uint16Array;
  readonly dtype: DType;
  readonly dim: number;
  /** `[N + 1]`. */
  readonly offsets: Uint32Array;
}

/** Padded reranking input without its padding: `engine.scorePairs(q, d, pairQIdx, pairDIdx)`. */
export interface PackedPairs {
  /** `B` queries. */
  readonly q: PackedTokens;
  /** `B·K` documents. */
  readonly d: PackedTokens;
  /** `[B·K]`: `0,0,…,1,1,…`. */
  readonly pairQIdx: Uint32Array;
  /** `[B·K]`: `0,1,2,…`. */
  readonly pairDIdx: Uint32Array;
}

/**
 * How gradients are accumulated. `"unified"`: one pass with atomic additions, fastest where few tokens win for many
 * queries, not bit-reproducible on GPUs. `"lowmem"`: every row of a gradient is owned and stored once, deterministic, half
 * the peak memory. `"auto"`: the better of the two for the shape. Backends may run one for the other; `explain` says so.
 */
export type BackwardMethod = "auto" | "unified" | "lowmem";

/** Options of {@link Engine.backward}. */
export interface BackwardOptions extends CallOptions {
  /** `argmax` of the forward run, as it was returned; winners are found again without it. */
  argmax?: Int32Array;
  /** Default `"auto"`. */
  method?: BackwardMethod;
  /** Which gradients. Default: all there are. */
  wants?: readonly ("q" | "d")[];
}

/** Gradients with the shape and type of `data` of their operands, padding included; `[T, d]` for packed ones. */
export interface Gradients {
  readonly q?: Tensor;
  /** Not for residual documents. */
  readonly d?: Tensor;
}

/** Operands and options of {@link Engine.maxsimFromHidden}. */
export interface FromHiddenInput extends ScoreOptions {
  /** Queries `[Nq, Lq, d]`, projected, and normalised if they are to be. */
  q: TokensInput;
  /** Hidden states of documents, `[Nd, Ld, dModel]` or packed, with `lengths` or `mask`. */
  h: TokensInput;
  /** Projection `[d, dModel]`. */
  w: TensorInput;
  /** Bias `[d]`. */
  b?: TensorInput | TokenData;
  /** Normalise the projected document tokens; queries are taken as they are. Default true. */
  normalize?: boolean;
}

/** Options of {@link Engine.maxsimFromHiddenBackward}. */
export interface FromHiddenBackwardOptions extends CallOptions {
  /** `argmax` of the forward run, as it was returned; winners are found again without it. */
  argmax?: Int32Array;
  /** Which gradients. Default: all there are. */
  wants?: readonly ("q" | "h" | "w" | "b")[];
}

/** Gradients with the shape and type of their operands. */
export interface FromHiddenGradients {
  readonly q?: Tensor;
  readonly h?: Tensor;
  readonly w?: Tensor;
  /** If there is a bias. */
  readonly b?: Tensor;
}

/** What shares a scale: each vector, or the whole array. */
export type ScaleMode = "token" | "tensor";

/** Options of {@link Api.quantizeFp8} and {@link Api.quantizeInt8}. */
export interface QuantizeOptions extends CallOptions {
  /** Default `"token"`. */
  scale?: ScaleMode;
}

/** A quantised array and its scales: valid as {@link QuantizedInput}, and with rank 2 to 4 as {@link TokensInput}. */
export interface QuantizedTensor {
  /** fp8 as `Uint8Array`, int8 as `Int8Array`. */
  readonly data: Uint8Array | Int8Array;
  readonly dtype: "fp8" | "int8";
  readonly shape: readonly number[];
  /** One, or one per vector. */
  readonly scales: Float32Array;
}

/** What {@link Api.dequantize} takes. */
export interface QuantizedInput extends TensorInput {
  /** One, or one per vector. */
  scales: number | Float32Array | readonly number[];
}

/** Options of {@link Api.decodeResidual}. */
export interface DecodeOptions extends CallOptions {
  /** Divide every token by `max(‖x‖₂, 1e-6)`, or multiply it with its `invNorms`. Default true. */
  normalize?: boolean;
}

/** Result of {@link Engine.quantizeResidual}: with its codec and `offsets` or `lengths`, a {@link ResidualInput}. */
export interface ResidualCodes {
  /** `[T]` */
  readonly codes: Uint32Array;
  /** `[T, ⌈d · nbits / 8⌉]`, unused bits zero. */
  readonly residuals: Uint8Array;
  /** `[T]`: `1 / max(‖decoded‖, 1e-6)`. */
  readonly invNorms: Float32Array;
}

type Fixed = "signal" | "argmax";

/** A scoring operator with its inputs, for {@link Engine.backward}. Options are those of the method of that name. */
export type DifferentiableOperation =
  | ({ op: "maxsim" | "maxsimPairs" | "maxsimVarlen"; q: TokensInput; d: TokensInput | ResidualInput } & Omit<ScoreOptions, Fixed>)
  | ({ op: "maxsimPadded"; q: TokensInput; d: TokensInput } & Omit<ScoreOptions, Fixed>)
  | ({ op: "maxsimResidual"; q: TokensInput; d: ResidualInput } & Omit<ScoreOptions, Fixed>)
  | ({
      op: "scorePairs"; q: TokensInput; d: TokensInput | ResidualInput; pairQIdx: IntegerArray; pairDIdx: IntegerArray;
    } & Omit<ScoreOptions, Fixed>);

/** Gradients as an operator, for {@link Engine.explain}: of a scoring operator or of the fused head. */
export type BackwardOperation =
  | ({ op: "backward"; of: DifferentiableOperation; gradScores: Float32Array | readonly number[] } & Omit<BackwardOptions, "signal">)
  | ({
      op: "backward";
      of: { op: "maxsimFromHidden" } & Omit<FromHiddenInput, Fixed>;
      gradScores: Float32Array | readonly number[];
    } & Omit<FromHiddenBackwardOptions, "signal">);

/** Options of what is loaded. */
export interface LoadOptions extends CallOptions {
  /** Bytes loaded so far, and of all. Not called where nothing is loaded, as in Node. */
  onProgress?(loaded: number, total: number): void;
}

/** An operator with its inputs, for {@link Engine.explain}. Options are those of the method of that name. */
export type Operation =
  | ({ op: "maxsim" | "maxsimPairs" | "maxsimVarlen" | "maxsimPadded"; q: QueryInput; d: DocumentsInput } & Omit<ScoreOptions, "signal">)
  | ({ op: "maxsimResidual"; q: QueryInput; d: ResidualInput } & Omit<ScoreOptions, "signal">)
  | ({ op: "scorePairs"; q: QueryInput; d: DocumentsInput; pairQIdx: IntegerArray; pairDIdx: IntegerArray } & Omit<ScoreOptions, "signal">)
  | ({ op: "retrieve"; q: QueryInput; d: DocumentsInput } & Omit<RetrieveOptions, "signal">)
  | ({ op: "maxsimFromHidden" } & Omit<FromHiddenInput, "signal">)
  | { op: "plaidApproxScore"; queryCentroidScores: TensorInput; d: CodesInput }
  | BackwardOperation;

/** How an operator will be run. */
export interface Plan {
  readonly backend: BackendKind;
  /** Kernel, e.g. `forward/avx2`. */
  readonly kernel: string;
  /** Tile, threads and other choices. */
  readonly choices: Readonly<Record<string, string>>;
  /** Reasons worth telling, e.g. why a backend was passed over. */
  readonly notes: readonly string[];
  /** All of it in one line. */
  readonly text: string;
}

/**
 * Runs operators, off the main thread or event loop. Calls may overlap.
 *
 * Every method rejects with a {@link MaxSimError}: `ERR_SHAPE`, `ERR_DTYPE`, `ERR_VALUE`, `ERR_INDEX` or `ERR_LIMIT`
 * for an argument (`details.argument` says which), `ERR_NON_FINITE` under `validateFinite` and in quantisers, `ERR_DISPOSED` after
 * {@link Engine.dispose}, and what the backend reports (`ERR_UNSUPPORTED`, `ERR_OUT_OF_MEMORY`, `ERR_DEVICE_LOST`, …).
 */
export interface Engine {
  readonly info: EngineInfo;

  /**
   * Every query with every document: `q [Nq, Lq, d]` × `d [Nd, Ld, d]` → `[Nq, Nd]`. With candidates
   * `d [Nq, K, Ld, d]` each query meets its own: `[Nq, K]`. Operands may be packed; a 2-D operand has no axis in the
   * result.
   */
  maxsim(q: QueryInput, d: DocumentsInput, options?: ScoreOptions): Promise<Scores>;

  /** Query `i` with document `i`: `[B, Lq, d]` × `[B, Ld, d]` → `[B]`. */
  maxsimPairs(q: QueryInput, d: DocumentsInput, options?: ScoreOptions): Promise<Scores>;

  /** Every packed query with every packed document: `[Nq, Nd]`. Both operands need `offsets`. */
  maxsimVarlen(q: TokensInput, d: DocumentsInput, options?: ScoreOptions): Promise<Scores>;

  /** Pair `p` is query `pairQIdx[p]` with document `pairDIdx[p]`: `[P]`, order kept, duplicates allowed. */
  scorePairs(
    q: QueryInput,
    d: DocumentsInput,
    pairQIdx: IntegerArray,
    pairDIdx: IntegerArray,
    options?: ScoreOptions,
  ): Promise<Scores>;

  /** Reranking: `q [B, Lq, d]` × `d [B, K, Ld, d]`, both with `lengths` → `[B, K]`. */
  maxsimPadded(q: TokensInput, d: TokensInput, options?: ScoreOptions): Promise<Scores>;

  /**
   * {@link maxsim} with residual documents, normalising unless told not to: `q [Nq, Lq, d]` × `Nd` documents →
   * `[Nq, Nd]`. Residual documents go wherever documents do; there, mind that `normalize` may be false unless set.
   */
  maxsimResidual(q: QueryInput, d: ResidualInput, options?: ScoreOptions): Promise<Scores>;

  /**
   * PLAID's approximate scores, from centroids alone: `queryCentroidScores [C, Lq]`, f32 or f16, and the codes of `B`
   * documents → `[B]`, `Σ_s max_t queryCentroidScores[codes[t], s]`.
   */
  plaidApproxScore(queryCentroidScores: TensorInput, d: CodesInput, options?: CallOptions): Promise<Scores>;

  /**
   * {@link maxsim} over projected hidden states: `maxsim(q, norm(h · wᵀ + b))` → `[Nq, Nd]`, without writing the
   * projection to memory.
   */
  maxsimFromHidden(input: FromHiddenInput): Promise<Scores>;

  /**
   * Gradients of a loss with respect to the operands of a scoring operator, from its gradient with respect to the scores.
   * `gradScores` has the scores' layout. Only the winning document token of each query token has a part in them; tokens
   * that do not count or win nothing get exactly 0. Sums are f32, results have the operands' types.
   *
   * ```ts
   * const operation = { op: "maxsim", q, d, normalize: true } as const;
   * const { scores, argmax } = await engine.maxsim(q, d, { normalize: true, argmax: true });
   * const gradients = await engine.backward(operation, gradOfLoss(scores), { argmax });
   * ```
   *
   * Quantised operands have no gradient (`ERR_DTYPE`), residual documents and corpora none of their own: `wants: ["d"]`
   * is `ERR_VALUE` for the former, and the latter are refused.
   */
  backward(
    operation: DifferentiableOperation,
    gradScores: Float32Array | readonly number[],
    options?: BackwardOptions,
  ): Promise<Gradients>;

  /** Gradients of {@link maxsimFromHidden}; `gradScores` is `[Nq, Nd]`. */
  maxsimFromHiddenBackward(
    input: Omit<FromHiddenInput, "signal" | "argmax">,
    gradScores: Float32Array | readonly number[],
    options?: FromHiddenBackwardOptions,
  ): Promise<FromHiddenGradients>;

  /**
   * Codes and residuals of `x [T, d]`: the centroid of largest inner product, the lowest index among equals, and per
   * component the number of `cutoffs [2^nbits − 1]`, which ascend, strictly below the rest. Feed unit vectors. Rejects
   * with `ERR_NON_FINITE` for NaN or infinity in `x` or centroids.
   */
  quantizeResidual(
    x: TensorInput,
    codec: ResidualCodec,
    cutoffs: Float32Array | readonly number[],
    options?: CallOptions,
  ): Promise<ResidualCodes>;

  /** The input of {@link maxsimPadded} without its padding. Masks and scales are refused. */
  packPadded(q: TokensInput, d: TokensInput, options?: CallOptions): Promise<PackedPairs>;

  /** The `topK` best documents of every query: `[Nq, min(topK, Nd)]`. Normalises unless told not to. */
  retrieve(q: QueryInput, d: DocumentsInput, options: RetrieveOptions): Promise<TopK>;

  /** Keeps documents, `[N, L, d]` padded, packed or residual, with the engine: upload once, search many times. */
  corpus(documents: CorpusInput | ResidualCorpusInput): Promise<Corpus>;

  /** Builds a PLAID index in a directory: token vectors as a centroid and a few bits per dimension, found through inverted lists. */
  buildIndex(options: BuildIndexOptions): Promise<Index>;

  /** Opens an index. Rejects with `ERR_FORMAT` if there is none. */
  openIndex(source: IndexSource, options?: OpenIndexOptions): Promise<Index>;

  /** Scoring with fixed options. */
  scorer(options?: ScorerOptions): Scorer;

  /**
   * The tuning table in use, for {@link EngineOptions.tuning}: JSON text, to be kept with the name of the GPU. Rejects with
   * `ERR_UNSUPPORTED` where there is nothing to choose between, which is everywhere but on CUDA.
   */
  exportTuning(): Promise<string>;

  /** How an operator would be run; it is validated but not run. */
  explain(operation: Operation): Promise<Plan>;

  /**
   * Frees the engine and its corpora. Calls under way still finish; later ones reject with `ERR_DISPOSED`. Doing it
   * twice is fine.
   */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Documents that an engine keeps. Free it with {@link Corpus.dispose}; rejects as {@link Engine} does. */
export interface Corpus {
  /** Number of documents. */
  readonly count: number;
  /** Embedding dimension `d`. */
  readonly dim: number;
  /** Type the documents are kept in; for residual documents that of the centroids. */
  readonly dtype: DType;
  /** Bytes the backend holds. */
  readonly bytes: number;
  /** Whether the documents were normalised; queries are then, too. */
  readonly normalized: boolean;

  /** Scores of all documents: `[Nq, Nd]`, or `[Nd]` for one query. */
  score(query: QueryInput, options?: Omit<ScoreOptions, "normalize">): Promise<Scores>;

  /** The best documents of every query: `[Nq, k]`, or `[k]` for one query; `k = min(topK, count)`. */
  search(query: QueryInput, options: SearchOptions): Promise<TopK>;

  /** Frees the documents. Calls under way still finish; later ones reject with `ERR_DISPOSED`. */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Id of a document in an index, which keeps it for life: a number below 2⁶⁴ or a text, all of one kind. */
export type DocumentId = bigint | string;

/** Ids as arguments: numbers up to 2⁵³ may be plain ones. */
export type DocumentIds = readonly (DocumentId | number)[] | BigUint64Array;

/** A value of metadata. A column has one type: boolean, text, integer (`bigint`) or float (`number`). */
export type MetadataValue = boolean | string | bigint | number | null;

/** Metadata of a document: values by column. Columns that are not named are null. */
export type Metadata = Readonly<Record<string, MetadataValue | undefined>>;

/** Documents for an index. */
export interface IndexBatch {
  /** Token vectors, which are normalised. */
  documents: TokensInput;
  /** An id per document. Default: numbers, counted on. */
  ids?: DocumentIds;
  /** A row per document. */
  metadata?: readonly Metadata[];
}

/** A file or directory handle of a browser's file system. */
export interface FileHandleLike {
  readonly kind: "file" | "directory";
  readonly name: string;
}

/** A `Blob` or `File`. */
export interface BlobLike {
  readonly size: number;
  arrayBuffer(): Promise<ArrayBuffer>;
  slice(start?: number, end?: number): BlobLike;
}

/** A `URL`. */
export interface UrlLike {
  readonly href: string;
}

/**
 * Where an index is: a directory, or one file as {@link Index.pack} makes it.
 *
 * In Node: a path, a `file:` URL, or the file's bytes. In browsers: a URL of the file, absolute or relative to the page; a path in
 * the origin private file system, written `opfs:path`; a directory or file handle; a `Blob`; or the bytes. What bytes, blobs, files and
 * URLs hold is read into memory: changes to such an index are kept as long as the object is.
 */
export type IndexSource = string | UrlLike | ArrayBuffer | ArrayBufferView | FileHandleLike | BlobLike;

/** Options of {@link Engine.openIndex}. */
export interface OpenIndexOptions extends LoadOptions {
  /**
   * In browsers, of a URL, `Blob` or file: leave out the documents' residuals, which are most of an index, until searches need them.
   * A search then reads those of its candidates (a quarter of `nFullScores`), by HTTP range requests, unless it has them from earlier
   * ones; a server that does not know such requests sends everything at once. Such an index cannot be changed, verified or packed.
   * Default false.
   */
  lazy?: boolean;
}

/**
 * What tells encoders apart. Vectors of two models have nothing to do with each other, even where they have the same dimension:
 * scores between them are noise that looks like scores. A {@link StaticEncoder} is one of these.
 */
export interface EncoderIdentity {
  /** The model's name, for people. */
  readonly name: string;
  /** Where to load it from: a folder, a URL, or an id on a model hub. Absent for an encoder that programs bring along. */
  readonly location?: string;
  /** Equal for encoders whose vectors can be compared: 64 bits, such as of a hash of the model's files. */
  readonly fingerprint: bigint;
}

/** Options of {@link Engine.buildIndex}. */
export interface BuildIndexOptions extends CallOptions {
  /** Directory of the new index: in Node its path, in browsers `opfs:path` or a directory handle. */
  path: string | FileHandleLike;
  /**
   * Gives the documents, in batches. It is called twice, and has to give the same batches both times: once for a sample to train
   * on, once to encode. Nothing is kept of a batch that was passed by, so that memory does not grow with their number.
   */
  documents(): AsyncIterable<IndexBatch> | Iterable<IndexBatch>;
  /** Kind of the ids. Default `"number"`. */
  ids?: "number" | "text";
  /** Bits per dimension of residuals: 1, 2, 4 or 8. Default 4. */
  nbits?: number;
  /** Number of centroids. Default `2^⌊log2(16·√tokens)⌋`. */
  centroids?: number;
  /** Iterations of k-means. Default 4. */
  iterations?: number;
  /** Seed of sample and k-means. Default 42. */
  seed?: number;
  /** Replace an index that is there; it stays until the new one is finished. Otherwise that is `ERR_VALUE`. Default false. */
  replace?: boolean;
  /**
   * What tells these documents from others. A build that ended early, by an error, a signal or the end of the process, is gone on
   * with by the next one of the same options and source.
   */
  source?: string;
  /** What made the vectors: the index remembers it, for {@link IndexInfo.encoder} and those who search it. Default: not known. */
  encoder?: EncoderIdentity;
  /** Hears of every batch. */
  onProgress?(progress: BuildProgress): void;
}

/** How far a build is, in documents. */
export interface BuildProgress {
  readonly phase: "sampling" | "training" | "encoding";
  /** Documents seen in this phase. */
  readonly documents: number;
  /** All documents; not known while sampling. */
  readonly total?: number;
}

/** Facts about an index. */
export interface IndexInfo {
  /** Counts changes. */
  readonly generation: number;
  /** Documents, without deleted ones. */
  readonly documents: number;
  /** Deleted documents whose room has not been gained yet. */
  readonly deleted: number;
  /** Tokens, of deleted documents too. */
  readonly tokens: number;
  readonly dim: number;
  readonly nbits: number;
  readonly centroids: number;
  readonly ids: "number" | "text";
  readonly columns: readonly { readonly name: string; readonly type: "boolean" | "integer" | "float" | "text" }[];
  /** What made its vectors, if whoever built the index said so. */
  readonly encoder?: EncoderIdentity;
  readonly segments: number;
  /** Bytes that a search reads per token. */
  readonly bytesPerToken: number;
  readonly fileBytes: number;
}

/** Which documents of an index are meant: those to which all that is given applies. */
export interface Selection {
  /**
   * An expression over metadata in a small part of SQL, such as `year >= ? AND lang IN ('de', 'en')`: comparisons, `IN`, `LIKE`,
   * `BETWEEN`, `IS NULL`, `AND`, `OR`, `NOT`.
   */
  filter?: string;
  /** Values for the question marks of `filter`. */
  parameters?: readonly MetadataValue[];
  /** Documents of these ids; ids that no document has are passed over. */
  ids?: DocumentIds;
}

/** Options of {@link Index.search}. */
export interface IndexSearchOptions extends CallOptions, Selection {
  /** Hits per query at most. */
  topK: number;
  /** Centroids probed per query token. Default 8. */
  nIvfProbe?: number;
  /**
   * Documents kept by approximate score, a quarter of which is scored well. Default 4096, and more for queries whose hits those do
   * not settle.
   */
  nFullScores?: number;
  /** Leave out probed centroids whose best similarity with a query token is below this. */
  centroidScoreThreshold?: number;
  /** Score every document. Default false. */
  exact?: boolean;
  /** Divide query tokens by their length. Default true. */
  normalize?: boolean;
  /** Also say which document token won each query token. Default false. */
  explain?: boolean;
  precision?: Precision;
  /** What made the query: another encoder than that of the index, if that is known, is `ERR_VALUE` (`details.argument` `"encoder"`). */
  encoder?: EncoderIdentity;
}

/** A found document. */
export interface IndexHit {
  readonly id: DocumentId;
  readonly score: number;
  /** With `explain`: per query token the winning token of the document, −1 where there is none. */
  readonly winners?: Int32Array;
}

/**
 * An index that is open. Changes are durable when their promise resolves, and are all there or not at all, whatever happens.
 *
 * Searches see what this object did, and after {@link Index.refresh} what others did. The first change takes the index's
 * writer lock until {@link Index.dispose}; it rejects with `ERR_LOCKED` if another has it.
 */
export interface Index {
  /** Facts as of now. */
  info(): IndexInfo;

  /** The best documents of every query, a list each (of a single query `[Lq, d]`, one list), best first. */
  search(query: QueryInput, options: IndexSearchOptions): Promise<IndexHit[][]>;

  /**
   * Adds documents; with `replace` in place of those that have their ids, which is otherwise `ERR_INDEX`. Gives how many were
   * replaced.
   */
  add(batch: IndexBatch, options?: IndexAddOptions): Promise<number>;

  /** Deletes documents; gives how many. Naming neither `filter` nor `ids` is `ERR_VALUE`. */
  delete(which: Selection, options?: CallOptions): Promise<number>;

  /** Brings the index into few files and gains the room of deleted documents. */
  compact(options?: CallOptions): Promise<void>;

  /** Metadata of a document, without nulls; `undefined` if there is no such document. */
  metadata(id: DocumentId | number): Promise<Record<string, MetadataValue> | undefined>;

  /** Sees what other writers did. */
  refresh(): Promise<void>;

  /** Compares all files with their checksums and each other: rejects with `ERR_CORRUPT` if something is wrong. */
  verify(): Promise<void>;

  /** The index as the bytes of one file, to be published or sent. `openIndex` takes them. */
  pack(): Promise<Uint8Array>;

  /** Lets go of files and lock. Calls under way still finish; later ones reject with `ERR_DISPOSED`. */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Options of {@link Index.add}. */
export interface IndexAddOptions extends CallOptions {
  /** Default false. */
  replace?: boolean;
  /** What made the vectors: checked as that of {@link IndexSearchOptions}. */
  encoder?: EncoderIdentity;
}

/** Options of {@link Engine.scorer}. */
export interface ScorerOptions {
  /** Default true. */
  normalize?: boolean;
  /** Token id that {@link Scorer.forwardWithIds} leaves out. */
  maskPadToken?: number | bigint;
  /** Default `"default"`. */
  precision?: Precision;
  /** Default false. */
  validateFinite?: boolean;
}

/** Options of the methods of {@link Scorer}; the others are fixed. */
export interface ScorerCallOptions extends CallOptions {
  /** Also return which document token won each query token. Default false. */
  argmax?: boolean;
}

/** Scores with fixed options. */
export interface Scorer {
  readonly options: Readonly<ScorerOptions>;

  /** {@link Engine.maxsim} with these options. */
  forward(q: QueryInput, d: DocumentsInput, options?: ScorerCallOptions): Promise<Scores>;

  /**
   * {@link Engine.maxsim} where tokens whose id is `maskPadToken` do not count. Ids have one entry per token slot and
   * take the place of masks. Rejects with `ERR_VALUE` if `maskPadToken` is not set.
   */
  forwardWithIds(
    q: TokensInput,
    qIds: IdArray,
    d: TokensInput,
    dIds: IdArray,
    options?: ScorerCallOptions,
  ): Promise<Scores>;

  /** One query with its candidates: `q [Lq, d]` → `[N]`. */
  score(q: QueryInput, d: DocumentsInput, options?: ScorerCallOptions): Promise<Scores>;

  /** {@link Engine.retrieve} with these options. */
  retrieve(q: QueryInput, d: DocumentsInput, options: Omit<SearchOptions, "precision">): Promise<TopK>;
}

/** Token ids: integers of any sign and width. */
export type IdArray = IntegerArray;

/**
 * Text to token vectors by table look-up: the same token has the same vector wherever it stands. There so that search
 * can be tried at once; for quality, encode with a ColBERT model elsewhere.
 *
 * Document vectors have unit length; query vectors are as long as the token is important. Search them with
 * `normalize: false`, or that is lost:
 *
 * ```ts
 * const { vectors, offsets, dim } = await encoder.encodeDocuments(texts);
 * const docs = await engine.corpus({ data: vectors, offsets, dim, normalize: false });
 * const query = await encoder.encodeQuery("ships under water");
 * const { indices } = await docs.search(query.vectors, { topK: 3 });
 * ```
 */
export interface StaticEncoder extends EncoderIdentity {
  /** The model's name. */
  readonly name: string;
  /** Length of a vector. */
  readonly dim: number;
  encodeQuery(text: string, options?: CallOptions): Promise<EncodedText>;
  encodeDocuments(texts: readonly string[], options?: CallOptions): Promise<EncodedTexts>;
}

/** One text as tokens. A text without any known token has none, which is not an error. */
export interface EncodedText {
  /** Text of each token, as the input spells it: `water`, or `sub`, `mers`, `ible`. */
  readonly tokens: readonly string[];
  /** `[T, 2]`: where tokens start and end in the text, counted as `String.prototype.slice` does. */
  readonly spans: Uint32Array;
  /** `[T, dim]`. */
  readonly vectors: Float32Array;
  readonly dim: number;
}

/** Several texts as tokens, one after the other. */
export interface EncodedTexts extends EncodedText {
  /** `[N + 1]`: text `i` has the tokens `offsets[i]` to `offsets[i + 1]`. Spans count from the start of its text. */
  readonly offsets: Uint32Array;
}
