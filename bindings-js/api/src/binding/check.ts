/** Checks of arguments that come before anything native: what JavaScript lets through and Rust would never see. */
import { MaxSimError, type ErrorCode } from "../error.js";
import type { AbortSignalLike, CallOptions, IntegerArray } from "../index.js";

/** An error about an argument, worded as Rust words them. */
export function argumentError(
  code: ErrorCode,
  argument: string,
  expected: string,
  got: string,
  position?: number,
): MaxSimError {
  const where = position === undefined ? argument : `${argument}[${position}]`;
  const details = position === undefined ? { argument, expected, got } : { argument, position, expected, got };
  return new MaxSimError(code, `${where}: expected ${expected}, got ${got}`, details);
}

/** A short description of any value, for `got`. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value)) return "an array";
  const name = Object.prototype.toString.call(value).slice(8, -1);
  return name === "Object" ? "an object" : name;
}

type Check<T> = (value: unknown, argument: string) => T;

const fail = (argument: string, expected: string, value: unknown): never => {
  throw argumentError("ERR_VALUE", argument, expected, describe(value));
};

export const boolean: Check<boolean> = (value, argument) =>
  typeof value === "boolean" ? value : fail(argument, "true or false", value);

/** A count. Zero passes: which counts may be zero is for Rust to say. */
export const count: Check<number> = (value, argument) =>
  Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : fail(argument, "a non-negative integer", value);

export const text: Check<string> = (value, argument) =>
  typeof value === "string" ? value : fail(argument, "a string", value);

export const integer: Check<bigint | number> = (value, argument) =>
  typeof value === "bigint" || Number.isSafeInteger(value) ? (value as bigint | number) : fail(argument, "an integer", value);

export const callback = <F extends (...args: never[]) => void>(value: unknown, argument: string): F =>
  typeof value === "function" ? (value as F) : fail(argument, "a function", value);

export const oneOf =
  <const T extends string>(...names: T[]): Check<T> =>
  (value, argument) =>
    names.includes(value as T) ? (value as T) : fail(argument, `one of ${names.join(", ")}`, value);

export const listOf =
  <T>(check: Check<T>): Check<T[]> =>
  (value, argument) =>
    Array.isArray(value) ? value.map((x, i) => check(x, `${argument}[${i}]`)) : fail(argument, "an array", value);

export const abortSignal: Check<AbortSignalLike> = (value, argument) => {
  const signal = value as Partial<AbortSignalLike> | null;
  return typeof signal === "object" && signal !== null && typeof signal.aborted === "boolean"
    && typeof signal.addEventListener === "function"
    ? (signal as AbortSignalLike)
    : fail(argument, "an AbortSignal", value);
};

/** The name of a typed array's class, `undefined` for anything else; not fooled by other realms or lookalikes. */
export const typedArrayName: (value: unknown) => string | undefined = (() => {
  const prototype: object = Object.getPrototypeOf(Uint8Array.prototype);
  const { get } = Object.getOwnPropertyDescriptor(prototype, Symbol.toStringTag)!;
  return (value) => get!.call(value);
})();

/**
 * Refuses memory that may change or vanish while it is read elsewhere.
 *
 * Shared memory and detached buffers are errors; a resizable buffer, whose pages may be taken away, is copied.
 */
export function pinned<T extends ArrayBufferView & { slice(): T }>(view: T, argument: string): T {
  const { buffer } = view;
  if (typeof SharedArrayBuffer !== "undefined" && buffer instanceof SharedArrayBuffer) {
    throw argumentError("ERR_VALUE", argument, "memory that is not shared", "a SharedArrayBuffer");
  }
  if (view.byteLength === 0 && isDetached(buffer as ArrayBuffer)) {
    throw argumentError("ERR_VALUE", argument, "a buffer that this thread still has", "a detached buffer");
  }
  return (buffer as { resizable?: boolean }).resizable === true ? view.slice() : view;
}

function isDetached(buffer: ArrayBuffer): boolean {
  try {
    // `ArrayBuffer.prototype.detached` is younger than Node 20; a view of a detached buffer has always thrown.
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}

const U32_END = 2 ** 32;

/** Integers of any width as `Uint32Array`, without a copy where they are one. */
export function integers(value: unknown, argument: string): Uint32Array {
  const name = typedArrayName(value);
  if (name === "Uint32Array") return pinned(value as Uint32Array, argument);
  if (name?.startsWith("Float") || (name === undefined && !Array.isArray(value))) {
    throw argumentError("ERR_DTYPE", argument, "an array of integers", describe(value));
  }
  const from = name === undefined ? (value as readonly unknown[]) : pinned(value as Uint8Array, argument);
  const to = new Uint32Array(from.length);
  for (let i = 0; i < from.length; i++) {
    const x = from[i];
    if (!(typeof x === "bigint" || Number.isInteger(x)) || (x as number) < 0) {
      throw argumentError("ERR_INDEX", argument, "a non-negative integer", describe(x), i);
    }
    if ((x as number) >= U32_END) {
      throw new MaxSimError("ERR_LIMIT", `${argument}: limit is 2147483647 per call, got ${x}`, {
        argument, position: i, limit: "2147483647 per call", got: String(x),
      });
    }
    to[i] = Number(x);
  }
  return to;
}

/** Numbers as `Float32Array`, without a copy where they are one. */
export function floats(value: unknown, argument: string, or = ""): Float32Array {
  if (typedArrayName(value) === "Float32Array") return pinned(value as Float32Array, argument);
  if (!Array.isArray(value)) {
    throw argumentError("ERR_DTYPE", argument, `${or}Float32Array or an array of numbers`, describe(value));
  }
  return Float32Array.from(value as number[], (x, i) => {
    if (typeof x === "number") return x;
    throw argumentError("ERR_VALUE", argument, "a number", describe(x), i);
  });
}

/** A typed array of this class, not copied. */
export function typed<T extends ArrayBufferView & { slice(): T }>(name: string, value: unknown, argument: string): T {
  if (typedArrayName(value) !== name) throw argumentError("ERR_DTYPE", argument, name, describe(value));
  return pinned(value as T, argument);
}

/** A mask that keeps every id but `pad`. Ids are compared as integers, whatever their width. */
export function idMask(ids: unknown, pad: number | bigint, argument: string): Uint8Array {
  const name = typedArrayName(ids);
  if (name?.startsWith("Float") || (name === undefined && !Array.isArray(ids))) {
    throw argumentError("ERR_DTYPE", argument, "an array of integers", describe(ids));
  }
  const from = ids as Exclude<IntegerArray, BigInt64Array>;
  // `==` compares number with bigint by value.
  return Uint8Array.from({ length: from.length }, (_, i) => ((from[i] as number) == pad ? 0 : 1));
}

/** Named settings, each with its check. */
export type Schema<T> = { [K in keyof T]-?: Check<NonNullable<T[K]>> };

/** The settings in `value`, checked; unknown names are errors, `undefined` counts as absent. */
export function settings<T extends object>(value: unknown, argument: string, schema: Schema<T>): T {
  if (value === undefined) return {} as T;
  if (typeof value !== "object" || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
    return fail(argument, "an object", value);
  }
  const checked: Partial<T> = {};
  for (const name of Object.keys(value)) {
    const given = (value as Record<string, unknown>)[name];
    if (given === undefined) continue;
    if (!Object.hasOwn(schema, name)) {
      throw argumentError("ERR_VALUE", name, `one of ${Object.keys(schema).join(", ")}`, "an unknown name");
    }
    checked[name as keyof T] = schema[name as keyof T](given, name) as T[keyof T];
  }
  return checked as T;
}

/** What every call takes. */
export const CALL: Schema<CallOptions> = { signal: abortSignal };
