/** The binary body of `/v1/score`: a safetensors file with `query`, `documents` and how these lie. */
import type { DType, TokenData, TokensInput } from "@maxsim/node";
import { fieldError, HttpError } from "../http/errors.js";
import { elements, parseSafetensors, SafetensorsError, type TensorView } from "./safetensors.js";

/** Query and documents as the engine takes them. */
export interface Vectors {
  query: TokensInput & { dim: number };
  documents: TokensInput;
}

const NAMES = ["query", "documents", "offsets", "lengths", "query_scales", "documents_scales"] as const;
type Name = (typeof NAMES)[number];

/**
 * `query [Lq, d]`; `documents [T, d]` with `offsets [N + 1]`, or `[N, L, d]` with `lengths [N]` if they are padded.
 * F32, F16, BF16, or I8 and F8_E4M3 with `query_scales` and `documents_scales`.
 *
 * @throws {HttpError} naming the entry.
 */
export function binaryVectors(body: Uint8Array): Vectors {
  const tensors = parse(body, NAMES);
  const query = tokens(tensors, "query", [2]);
  const documents = tokens(tensors, "documents", [2, 3]);
  const offsets = integers(tensors, "offsets");
  const lengths = integers(tensors, "lengths");
  const shape = tensors.get("documents")!.shape;
  const dim = shape[shape.length - 1]!;
  if (dim === 0) throw fieldError("documents", "a dimension of at least 1", `shape ${list(shape)}`, "ERR_SHAPE");
  if (shape.length === 2) {
    if (lengths) throw fieldError("lengths", "none, since documents are packed [T, d]", "some");
    if (!offsets) throw fieldError("offsets", "[N + 1] integers, since documents are packed [T, d]", "none");
    return { query, documents: { ...documents, dim, offsets } };
  }
  if (offsets) throw fieldError("offsets", "none, since documents are padded [N, L, d]", "some");
  if (lengths) return { query, documents: { ...documents, shape, lengths } };
  // Without padding, padded documents are packed ones, and those can share a batch.
  const [count, length] = shape as [number, number];
  return { query, documents: { ...documents, dim, offsets: Uint32Array.from({ length: count + 1 }, (_, i) => i * length) } };
}

/** `query [Lq, d]` alone, with `query_scales` if it is I8 or F8_E4M3. */
export function binaryQuery(body: Uint8Array): Vectors["query"] {
  return tokens(parse(body, ["query", "query_scales"]), "query", [2]);
}

function parse(body: Uint8Array, names: readonly Name[]): Map<string, TensorView> {
  let tensors: Map<string, TensorView>;
  try {
    tensors = parseSafetensors(body);
  } catch (error) {
    if (!(error instanceof SafetensorsError)) throw error;
    const field = error.tensor ?? "body";
    throw new HttpError(400, "ERR_FORMAT", `${field}: ${error.message}`, { field });
  }
  for (const name of tensors.keys()) {
    if (!(names as readonly string[]).includes(name)) throw fieldError(name, `one of ${names.join(", ")}`, "another name");
  }
  return tensors;
}

const TYPES: Readonly<Record<string, { dtype: DType; data: (bytes: Uint8Array) => TokenData }>> = {
  F32: { dtype: "f32", data: (bytes) => elements(bytes, Float32Array) },
  F16: { dtype: "f16", data: (bytes) => elements(bytes, Uint16Array) },
  BF16: { dtype: "bf16", data: (bytes) => elements(bytes, Uint16Array) },
  F8_E4M3: { dtype: "fp8", data: (bytes) => bytes },
  I8: { dtype: "int8", data: (bytes) => elements(bytes, Int8Array) },
};

function tokens(tensors: Map<string, TensorView>, name: "query" | "documents", ranks: number[]): TokensInput & { dim: number } {
  const tensor = tensors.get(name);
  if (!tensor) throw fieldError(name, "an array of token vectors", "none");
  const { dtype, shape, bytes } = tensor;
  const type = TYPES[dtype];
  if (!type) throw fieldError(name, `dtype one of ${Object.keys(TYPES).join(", ")}`, dtype, "ERR_DTYPE");
  if (!ranks.includes(shape.length)) {
    throw fieldError(name, ranks.map((rank) => (rank === 2 ? "[tokens, d]" : "[N, L, d]")).join(" or "), list(shape), "ERR_SHAPE");
  }
  const scales = scalesOf(tensors, `${name}_scales`);
  const quantised = type.dtype === "int8" || type.dtype === "fp8";
  if (quantised && !scales) throw fieldError(`${name}_scales`, `F32, one or one per token, since ${name} are ${dtype}`, "none");
  if (!quantised && scales) throw fieldError(`${name}_scales`, `none, since ${name} are ${dtype}`, "some");
  return { data: type.data(bytes), dtype: type.dtype, dim: shape[shape.length - 1]!, ...(scales && { scales }) };
}

function scalesOf(tensors: Map<string, TensorView>, name: Name): number | Float32Array | undefined {
  const tensor = tensors.get(name);
  if (!tensor) return undefined;
  if (tensor.dtype !== "F32") throw fieldError(name, "dtype F32", tensor.dtype, "ERR_DTYPE");
  const scales = elements(tensor.bytes, Float32Array);
  return tensor.shape.length === 0 ? scales[0]! : scales;
}

function integers(tensors: Map<string, TensorView>, name: "offsets" | "lengths"): Uint32Array | undefined {
  const tensor = tensors.get(name);
  if (!tensor) return undefined;
  const { dtype, shape, bytes } = tensor;
  if (shape.length !== 1) throw fieldError(name, "one dimension", list(shape), "ERR_SHAPE");
  if (dtype === "U32") return elements(bytes, Uint32Array);
  if (dtype === "I32") return checked(name, elements(bytes, Int32Array));
  if (dtype === "I64") return checked(name, elements(bytes, BigInt64Array));
  if (dtype === "U64") return checked(name, elements(bytes, BigUint64Array));
  throw fieldError(name, "dtype I64, I32, U64 or U32", dtype, "ERR_DTYPE");
}

function checked(name: string, values: Int32Array | BigInt64Array | BigUint64Array): Uint32Array {
  return Uint32Array.from(values as ArrayLike<number | bigint>, (value, i) => {
    const number = Number(value);
    if (number < 0 || number > 0xffff_ffff) throw fieldError(`${name}[${i}]`, "an integer from 0 to 2^32 − 1", String(value), "ERR_INDEX");
    return number;
  });
}

function list(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}
