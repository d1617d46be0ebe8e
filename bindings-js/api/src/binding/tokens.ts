/** From what users pass as tokens and arrays to {@link RawTokens} and {@link RawTensor}. */
import type { DType, Float16ArrayLike, TensorInput, TokensInput } from "../index.js";
import {
  argumentError, count, describe, floats, integers, oneOf, pinned, settings, typedArrayName, type Schema,
} from "./check.js";
import type { Held } from "./host.js";
import type { RawTensor, RawTokens } from "./native.js";

export const dtype = oneOf("f32", "f16", "bf16", "fp8", "int8");

/** Element types an array can hold; the first is taken without a `dtype`, unless there are several. */
const HOLDS: Record<string, readonly DType[]> = {
  Float32Array: ["f32"],
  Float16Array: ["f16"],
  Uint16Array: ["f16", "bf16"],
  Uint8Array: ["fp8"],
  Int8Array: ["int8"],
};

type Bytes = Uint8Array & { slice(): Bytes };

/** `engine.corpus({data, …})` is its own argument; other operands are named. */
export const path = (name: string, field: string): string => (name === "" ? field : `${name}.${field}`);

function elements(value: unknown, given: DType | undefined, name: string): { data: Uint8Array; dtype: DType } {
  const kind = typedArrayName(value);
  const holds = kind === undefined ? undefined : HOLDS[kind];
  if (holds === undefined) {
    throw argumentError("ERR_DTYPE", path(name, "data"), `one of ${Object.keys(HOLDS).join(", ")}`, describe(value));
  }
  if (given === undefined && holds.length > 1) {
    throw argumentError("ERR_DTYPE", path(name, "dtype"), `${holds.join(" or ")} for ${kind}`, "none");
  }
  const type = given ?? holds[0]!;
  if (!holds.includes(type)) {
    const fitting = Object.keys(HOLDS).filter((array) => HOLDS[array]!.includes(type));
    throw argumentError("ERR_DTYPE", path(name, "data"), `${fitting.join(" or ")} for dtype ${type}`, kind!);
  }
  const view = pinned(value as Bytes, path(name, "data"));
  return { data: new Uint8Array(view.buffer, view.byteOffset, view.byteLength), dtype: type };
}

function mask(value: unknown, argument: string): Uint8Array {
  const name = typedArrayName(value);
  if (name === "Uint8Array") return pinned(value as Uint8Array, argument);
  if (!Array.isArray(value)) {
    throw argumentError("ERR_DTYPE", argument, "Uint8Array or an array of booleans", describe(value));
  }
  return Uint8Array.from(value as boolean[], (keep, i) => {
    if (typeof keep === "boolean") return Number(keep);
    throw argumentError("ERR_VALUE", argument, "true or false", describe(keep), i);
  });
}

/** One scale or several. */
export function scales(value: unknown, argument: string): Float32Array {
  return typeof value === "number" ? Float32Array.of(value) : floats(value, argument, "a number, ");
}

function shape(value: unknown, argument: string): number[] {
  if (Array.isArray(value)) return value.map((extent, i) => count(extent, `${argument}[${i}]`));
  throw argumentError("ERR_SHAPE", argument, "an array of extents", describe(value));
}

type Fields = Omit<TokensInput, "data"> & { data?: unknown };
const any = <T>(value: unknown) => value as T;

/** Names only: the values are checked where the path to them is known. */
export const TOKEN_FIELDS: Schema<Fields> = {
  data: any,
  dtype: any,
  shape: any,
  dim: any,
  offsets: any,
  mask: any,
  lengths: any,
  scales: any,
};

/** The operand `name`. `dim` is known where documents are a corpus: a bare array is then one query. */
export function tokens(value: unknown, name: string, dim?: number): RawTokens {
  if (typedArrayName(value) !== undefined) {
    if (dim === undefined) {
      throw argumentError("ERR_SHAPE", name, "{ data, shape }, { data, dim, offsets } or { data, dim }", "a bare array");
    }
    return tokens({ data: value, dim }, name);
  }
  if (typeof value !== "object" || value === null) {
    throw argumentError("ERR_VALUE", name, "tokens: { data, shape } or { data, dim, offsets }", describe(value));
  }
  return fields(settings<Fields>(value, name, TOKEN_FIELDS), name);
}

/** What a call holds of an operand. */
export const held = ({ name, data }: RawTokens | RawTensor): Held => ({ argument: path(name, "data"), view: data });

const TENSOR: Schema<TensorFields> = { data: any, dtype: any, shape: any, dim: any };
type TensorFields = Omit<TensorInput, "data"> & { data?: unknown };

/** The array `name`; a bare typed array is a vector. */
export function tensor(value: unknown, name: string): RawTensor {
  if (typedArrayName(value) !== undefined) return tensor({ data: value }, name);
  if (typeof value !== "object" || value === null) {
    throw argumentError("ERR_VALUE", name, "an array: { data, shape } or { data, dim }", describe(value));
  }
  return tensorOf(settings<TensorFields>(value, name, TENSOR), name);
}

/** An array from its fields. */
export function tensorOf(given: TensorFields, name: string): RawTensor {
  const type = given.dtype === undefined ? undefined : dtype(given.dtype, path(name, "dtype"));
  const raw = { name, ...elements(given.data, type, name) };
  const { length } = given.data as Float16ArrayLike;
  const dim = given.dim === undefined ? undefined : count(given.dim, path(name, "dim"));
  if (given.shape === undefined) {
    return { ...raw, shape: dim === undefined ? [length] : single(given.data as Float16ArrayLike, dim, name) };
  }
  const extents = shape(given.shape, path(name, "shape"));
  if (dim !== undefined && dim !== extents.at(-1)) {
    throw argumentError("ERR_SHAPE", path(name, "dim"), `the last extent of shape, ${extents.at(-1)}`, String(dim));
  }
  return { ...raw, shape: extents };
}

/** Tokens from their fields. */
export function fields(given: Fields, name: string): RawTokens {
  const at = (field: keyof TokensInput): string => path(name, field);
  const type = given.dtype === undefined ? undefined : dtype(given.dtype, at("dtype"));
  const raw: RawTokens = { name, ...elements(given.data, type, name) };
  const dim = given.dim === undefined ? undefined : count(given.dim, at("dim"));
  if (given.shape !== undefined) {
    raw.shape = shape(given.shape, at("shape"));
    const last = raw.shape.at(-1);
    if (given.offsets !== undefined) {
      throw argumentError("ERR_VALUE", at("offsets"), "either offsets (packed) or shape (padded)", "both");
    }
    if (dim !== undefined && dim !== last) {
      throw argumentError("ERR_SHAPE", at("dim"), `the last extent of shape, ${last}`, String(dim));
    }
  } else if (dim === undefined) {
    throw argumentError("ERR_SHAPE", at("shape"), "shape, or dim with or without offsets", "none");
  } else if (given.offsets !== undefined) {
    raw.dim = dim;
    raw.offsets = integers(given.offsets, at("offsets"));
  } else {
    raw.shape = single(given.data as Float16ArrayLike, dim, name);
  }
  if (given.mask !== undefined) raw.mask = mask(given.mask, at("mask"));
  if (given.lengths !== undefined) raw.lengths = integers(given.lengths, at("lengths"));
  if (given.scales !== undefined) raw.scales = scales(given.scales, at("scales"));
  return raw;
}

function single(data: Float16ArrayLike, dim: number, name: string): number[] {
  if (dim === 0) throw argumentError("ERR_SHAPE", path(name, "dim"), "at least 1", "0");
  if (data.length % dim !== 0) {
    throw argumentError("ERR_SHAPE", path(name, "data"), `a multiple of dim = ${dim} elements`, `${data.length} elements`);
  }
  return [data.length / dim, dim];
}
