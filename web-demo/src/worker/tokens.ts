/** Token vectors of texts. */
import { quantizeInt8 } from "@maxsim/web";
import type { Encoder } from "./encoders/encoder.ts";

/** int8 with a scale per token: a quarter of f32 in memory and on disk, and at that the same ranking. */
export interface TokenTable {
  readonly dim: number;
  /** `[T, dim]` */
  readonly data: Int8Array<ArrayBuffer>;
  /** `[T]` */
  readonly scales: Float32Array<ArrayBuffer>;
  /** `[N + 1]`: text `i` has the tokens `offsets[i]` to `offsets[i + 1]`. */
  readonly offsets: Uint32Array<ArrayBuffer>;
  /** `[T, 2]`: where tokens stand in their text. */
  readonly spans: Uint32Array<ArrayBuffer>;
}

/** The tokens of `texts`, a batch at a time. */
export async function encodeAll(
  encoder: Encoder, texts: readonly string[], progress: (done: number) => void, signal: AbortSignal,
): Promise<TokenTable> {
  const tables: TokenTable[] = [];
  for (let start = 0; start < texts.length; start += encoder.batch) {
    const { vectors, offsets, spans } = await encoder.encodeDocuments(texts.slice(start, start + encoder.batch), signal);
    const { dim } = encoder;
    const { data, scales } = vectors.length > 0 ? await quantizeInt8({ data: vectors, dim }, { signal }) : EMPTY;
    tables.push({ dim, data, scales, offsets, spans } as TokenTable);
    progress(Math.min(start + encoder.batch, texts.length));
  }
  return concat(tables, encoder.dim);
}

const EMPTY = { data: new Int8Array(), scales: new Float32Array() };

/** The tables behind one another. */
export function concat(tables: readonly TokenTable[], dim: number): TokenTable {
  if (tables.length === 1) return tables[0]!;
  const sum = (size: (table: TokenTable) => number): number => tables.reduce((all, table) => all + size(table), 0);
  const rows = sum((table) => table.scales.length);
  const all = {
    dim,
    data: new Int8Array(rows * dim),
    scales: new Float32Array(rows),
    offsets: new Uint32Array(sum((table) => table.offsets.length - 1) + 1),
    spans: new Uint32Array(2 * rows),
  };
  let [row, text] = [0, 0];
  for (const { data, scales, offsets, spans } of tables) {
    all.data.set(data, row * dim);
    all.scales.set(scales, row);
    all.spans.set(spans, 2 * row);
    for (let i = 1; i < offsets.length; i++) all.offsets[++text] = row + offsets[i]!;
    row += scales.length;
  }
  return all;
}

/** The first `texts` texts, without copying their vectors. */
export function head({ dim, data, scales, offsets, spans }: TokenTable, texts: number): TokenTable {
  const rows = offsets[texts]!;
  return {
    dim, data: data.subarray(0, rows * dim), scales: scales.subarray(0, rows),
    offsets: offsets.subarray(0, texts + 1), spans: spans.subarray(0, 2 * rows),
  };
}

/** Similarity of query token `s` with row `row`. */
export function similarity({ dim, data, scales }: TokenTable, row: number, query: Float32Array, s: number): number {
  let sum = 0;
  for (let k = 0, q = s * dim, d = row * dim; k < dim; k++) sum += query[q + k]! * data[d + k]!;
  return sum * scales[row]!;
}

const MAGIC = 0x4b4f544d; // "MTOK"

/** A table as bytes; {@link parse} reads them. */
export function serialize({ dim, data, scales, offsets, spans }: TokenTable): Blob {
  return new Blob([new Uint32Array([MAGIC, dim, scales.length, offsets.length - 1]), offsets, spans, scales, data]);
}

/** A table from bytes; undefined if they are none, or cut off. */
export function parse(bytes: ArrayBuffer): TokenTable | undefined {
  if (bytes.byteLength < 16) return undefined;
  const [magic, dim, rows, texts] = new Uint32Array(bytes, 0, 4) as unknown as [number, number, number, number];
  const at = [16, 4 * (texts + 1), 8 * rows, 4 * rows, rows * dim];
  if (magic !== MAGIC || bytes.byteLength !== at.reduce((sum, size) => sum + size, 0)) return undefined;
  let start = 16;
  const next = (size: number): number => (start += size) - size;
  const offsets = new Uint32Array(bytes, next(at[1]!), texts + 1);
  const spans = new Uint32Array(bytes, next(at[2]!), 2 * rows);
  const scales = new Float32Array(bytes, next(at[3]!), rows);
  return { dim, offsets, spans, scales, data: new Int8Array(bytes, next(at[4]!), rows * dim) };
}
