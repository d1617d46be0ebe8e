/** Messages between the page and a worker. */
import type { Failure } from "@maxsim/api/binding";
import type { Source } from "./service.js";

/** To the worker: the first message loads, calls have numbers, and a number alone asks its call to stop. */
export type Request =
  | { load: Source }
  | { id: number; call: string; args: unknown[]; stop?: Stop; progress?: boolean }
  | { stop: number };

/**
 * How a worker that is busy learns that it should stop: a word of shared memory turns 1 or, on pages that may not share
 * memory, a blob's URL stops to exist.
 */
export type Stop = Int32Array | string;

/** From the worker. The answer to `load` has number 0. */
export type Reply =
  | { id: number; value: unknown; warnings: string[] }
  | { id: number; failure: Failure; warnings: string[] }
  | { id: number; progress: [loaded: number, total: number] };

/** An array or an object without a class: blobs and handles of files have no parts to look at, and are copied by the browser. */
const isPlain = (value: unknown): value is object =>
  Array.isArray(value) || (typeof value === "object" && value !== null && [Object.prototype, null].includes(Object.getPrototypeOf(value)));

/** The buffers of all arrays in a plain value, to be handed over. */
export function buffers(value: unknown, found: Set<ArrayBuffer> = new Set()): Set<ArrayBuffer> {
  if (ArrayBuffer.isView(value)) found.add(value.buffer as ArrayBuffer);
  else if (isPlain(value)) for (const part of Object.values(value)) buffers(part, found);
  return found;
}

/** The same value over copies of its arrays, each as large as what it shows: a view's buffer may be far larger. */
export function copied<T>(value: T): T {
  if (ArrayBuffer.isView(value)) return (value as unknown as Uint8Array).slice() as T;
  if (Array.isArray(value)) return value.map(copied) as T;
  if (!isPlain(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, copied(part)])) as T;
}
