/** What matched what: from token vectors and the winners of a search. */
import type { Match, Similarities } from "../protocol.ts";
import type { EncodedQuery } from "./encoders/encoder.ts";
import { similarity, type TokenTable } from "./tokens.ts";

/** `winners[s]` is the token of `document` that won query token `s`, -1 if none did. */
export function matches(tokens: TokenTable, document: number, query: EncodedQuery, winners: Int32Array): Match[] {
  return [...winners].flatMap((token, s) => {
    if (token < 0) return [];
    const row = tokens.offsets[document]! + token;
    const [start, end] = [tokens.spans[2 * row]!, tokens.spans[2 * row + 1]!];
    return [{ query: s, token, start, end, similarity: similarity(tokens, row, query.vectors, s) }];
  });
}

/** All of them, for `document`, which is `text`. */
export function similarities(tokens: TokenTable, document: number, text: string, query: EncodedQuery): Similarities {
  const { offsets, spans } = tokens;
  const [first, end] = [offsets[document]!, offsets[document + 1]!];
  const columns = Array.from({ length: end - first }, (_, t) => text.slice(spans[2 * (first + t)], spans[2 * (first + t) + 1]) || "·");
  const values = new Float32Array(query.tokens.length * columns.length);
  const winners = new Int32Array(query.tokens.length).fill(-1);
  query.tokens.forEach((_, s) => {
    const row = values.subarray(s * columns.length, (s + 1) * columns.length);
    row.forEach((_, t) => (row[t] = similarity(tokens, first + t, query.vectors, s)));
    if (row.length > 0) winners[s] = row.indexOf(Math.max(...row));
  });
  return { rows: query.tokens, columns, values, winners };
}
