/** What turns texts into token vectors. */

export interface EncodedQuery {
  /** Tokens as the query spells them, special ones by their name. */
  readonly tokens: readonly string[];
  /** `[T, dim]` */
  readonly vectors: Float32Array;
}

export interface EncodedDocuments {
  /** `[T, dim]`, of unit length. */
  readonly vectors: Float32Array;
  /** `[N + 1]` */
  readonly offsets: Uint32Array;
  /** `[T, 2]`: where tokens stand in their text; empty spans for special tokens. */
  readonly spans: Uint32Array;
}

export interface Encoder {
  /** What people call it. */
  readonly name: string;
  /** Vectors of encoders with the same fingerprint can be compared. Fits into the name of a file. */
  readonly fingerprint: string;
  readonly dim: number;
  /** Texts that are worth encoding together. */
  readonly batch: number;
  encodeQuery(text: string): Promise<EncodedQuery>;
  /** Rejects with `signal.reason`. */
  encodeDocuments(texts: readonly string[], signal: AbortSignal): Promise<EncodedDocuments>;
  dispose(): void;
}
