/**
 * The safetensors format: a length, a JSON header, bytes. It is what the binary body of `/v1/score` is written in, since
 * every language has a writer, and what projections of models lie in.
 *
 * https://huggingface.co/docs/safetensors
 */

/** One array of a file. */
export interface TensorView {
  /** As the file names it: `F32`, `F16`, `I64`, … */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Little-endian elements, not aligned. */
  readonly bytes: Uint8Array;
}

/** A file that is not what it claims to be; `tensor` names the entry at fault, if it is one. */
export class SafetensorsError extends Error {
  constructor(message: string, readonly tensor?: string) {
    super(message);
  }
}

/** Bytes per element of the types that are read here. */
const SIZES: Readonly<Record<string, number>> = {
  F64: 8, F32: 4, F16: 2, BF16: 2, F8_E4M3: 1, I8: 1, U8: 1, BOOL: 1, I16: 2, U16: 2, I32: 4, U32: 4, I64: 8, U64: 8,
};

/** Far above what headers of real files have, far below what would stop the event loop. */
const MAX_HEADER = 1024 * 1024;

/**
 * The arrays of a file, by name. Nothing is copied, and nothing that the header says is believed before it is checked.
 *
 * @throws {SafetensorsError}
 */
export function parseSafetensors(file: Uint8Array): Map<string, TensorView> {
  if (file.length < 8) throw new SafetensorsError(`expected safetensors, got ${file.length} bytes`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const headerLength = Number(view.getBigUint64(0, true));
  if (headerLength > Math.min(MAX_HEADER, file.length - 8)) {
    throw new SafetensorsError(`expected a header of at most ${Math.min(MAX_HEADER, file.length - 8)} bytes, got ${headerLength}`);
  }
  const data = file.subarray(8 + headerLength);
  const tensors = new Map<string, TensorView>();
  for (const [name, entry] of Object.entries(header(file.subarray(8, 8 + headerLength)))) {
    if (name !== "__metadata__") tensors.set(name, tensor(name, entry, data));
  }
  return tensors;
}

function header(bytes: Uint8Array): object {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new SafetensorsError(`expected a header of JSON: ${(cause as Error).message}`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) throw new SafetensorsError("expected a header that is an object");
  return parsed;
}

function tensor(name: string, entry: unknown, data: Uint8Array): TensorView {
  const bad = (what: string): never => {
    throw new SafetensorsError(what, name);
  };
  const { dtype, shape, data_offsets: range } = (entry ?? {}) as { dtype?: unknown; shape?: unknown; data_offsets?: unknown };
  const size = typeof dtype === "string" && Object.hasOwn(SIZES, dtype) ? SIZES[dtype]! : 0;
  if (size === 0) bad(`expected dtype one of ${Object.keys(SIZES).join(", ")}, got ${JSON.stringify(dtype) ?? "none"}`);
  if (!extents(shape)) return bad("expected shape to be a list of extents");
  if (!extents(range) || range.length !== 2) return bad("expected data_offsets to be two numbers");
  const [start, end] = range as [number, number];
  if (start > end || end > data.length) bad(`expected data_offsets within ${data.length} bytes, got [${start}, ${end}]`);
  const wanted = shape.reduce((product, extent) => product * extent, size);
  if (wanted !== end - start) bad(`expected ${wanted} bytes for ${String(dtype)} [${shape.join(", ")}], got ${end - start}`);
  return { dtype: dtype as string, shape, bytes: data.subarray(start, end) };
}

function extents(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= 8 && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** Elements of `bytes` as `Type`: a view where they are aligned, else a copy. */
export function elements<T>(
  bytes: Uint8Array,
  Type: { new (buffer: ArrayBufferLike, offset: number, length: number): T; readonly BYTES_PER_ELEMENT: number },
): T {
  const size = Type.BYTES_PER_ELEMENT;
  const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  return new Type(aligned.buffer, aligned.byteOffset, aligned.byteLength / size);
}
