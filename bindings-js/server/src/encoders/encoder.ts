/** What turns text into token vectors. */

/** Texts as tokens, one text after the other. */
export interface Encoded {
  /** `[T, dim]` */
  readonly vectors: Float32Array;
  /** `[N + 1]`: text `i` has the tokens `offsets[i]` to `offsets[i + 1]`. */
  readonly offsets: Uint32Array;
}

/** Queries are encoded differently from documents: prefixes, expansion, weights. */
export type TextKind = "query" | "document";

/** A model. */
export interface Encoder {
  readonly name: string;
  /** Length of a vector. */
  readonly dim: number;
  /** Characters that are worth encoding in one call. */
  readonly maxBatch: number;
  /** Calls that can run at the same time. */
  readonly concurrency: number;
  /** Why it cannot encode any more; `undefined` while it can. */
  readonly failure: Error | undefined;
  /** Vectors as they are to be scored: no further normalisation. Rejects with `signal.reason`. */
  encode(kind: TextKind, texts: readonly string[], signal: AbortSignal): Promise<Encoded>;
  close(): Promise<void>;
}

/** `texts` texts of `encoded`, from text `first` on. */
export function slice({ vectors, offsets }: Encoded, dim: number, first: number, texts: number): Encoded {
  const start = offsets[first]!;
  const part = offsets.subarray(first, first + texts + 1);
  return { vectors: vectors.subarray(start * dim, part[texts]! * dim), offsets: part.map((offset) => offset - start) };
}

/** Texts of several batches behind one another. */
export function concat(parts: readonly Encoded[]): Encoded {
  if (parts.length === 1) return parts[0]!;
  const vectors = new Float32Array(parts.reduce((sum, part) => sum + part.vectors.length, 0));
  const offsets = new Uint32Array(parts.reduce((sum, part) => sum + part.offsets.length - 1, 1));
  let [at, text, rows] = [0, 1, 0];
  for (const part of parts) {
    vectors.set(part.vectors, at);
    at += part.vectors.length;
    for (const end of part.offsets.subarray(1)) offsets[text++] = rows + end;
    rows += part.offsets[part.offsets.length - 1]!;
  }
  return { vectors, offsets };
}

/** The first `limit` tokens of every text. */
export function truncate(encoded: Encoded, dim: number, limit: number): Encoded {
  const { vectors, offsets } = encoded;
  if (offsets.every((end, i) => i === 0 || end - offsets[i - 1]! <= limit)) return encoded;
  const kept = new Uint32Array(offsets.length);
  for (let i = 1; i < offsets.length; i++) kept[i] = kept[i - 1]! + Math.min(limit, offsets[i]! - offsets[i - 1]!);
  const out = new Float32Array(kept[kept.length - 1]! * dim);
  for (let i = 1; i < offsets.length; i++) {
    const start = offsets[i - 1]! * dim;
    out.set(vectors.subarray(start, start + (kept[i]! - kept[i - 1]!) * dim), kept[i - 1]! * dim);
  }
  return { vectors: out, offsets: kept };
}
