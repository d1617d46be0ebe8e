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
  /** Characters that are worth encoding together. */
  readonly maxBatch: number;
  /** Batches that can be under way at the same time. */
  readonly concurrency: number;
  /** Why it cannot encode any more; `undefined` while it can. */
  readonly failure: Error | undefined;
  /** Vectors as they are to be scored: no further normalisation. Rejects with `signal.reason`. */
  encode(kind: TextKind, texts: readonly string[], signal: AbortSignal): Promise<Encoded>;
  close(): Promise<void>;
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

/** The first `limits[i]` tokens of every text `i`. */
export function truncate(encoded: Encoded, dim: number, limits: readonly number[]): Encoded {
  const { vectors, offsets } = encoded;
  const kept = new Uint32Array(offsets.length);
  limits.forEach((limit, i) => (kept[i + 1] = kept[i]! + Math.min(limit, offsets[i + 1]! - offsets[i]!)));
  if (kept[limits.length] === offsets[limits.length]) return encoded;
  const out = new Float32Array(kept[limits.length]! * dim);
  limits.forEach((_, i) => {
    const start = offsets[i]! * dim;
    out.set(vectors.subarray(start, start + (kept[i + 1]! - kept[i]!) * dim), kept[i]! * dim);
  });
  return { vectors: out, offsets: kept };
}
