/** Documents that are searched together, and the corpus an engine has of them. */
import type { Corpus, Engine } from "@maxsim/web";
import type { Answer, CollectionName, Hit, Match, Similarities } from "../protocol.ts";
import type { EncodedQuery } from "./encoders/encoder.ts";
import { similarity, type TokenTable } from "./tokens.ts";

export interface Document {
  readonly title: string;
  readonly place: string;
  readonly text: string;
}

/** What one search found. */
export type Found = Pick<Answer, "hits" | "documents" | "documentTokens">;

export class Collection {
  #corpus: Promise<Corpus> | undefined;

  constructor(readonly name: CollectionName, readonly documents: readonly Document[], readonly tokens: TokenTable) {}

  /** Uploads the documents the first time; a collection is of one engine. */
  corpus(engine: Engine): Promise<Corpus> {
    const { data, scales, offsets, dim } = this.tokens;
    // Encoders give unit vectors already, and a query token's length is its weight.
    return (this.#corpus ??= engine.corpus({ data, scales, offsets, dim, normalize: false }));
  }

  async search(engine: Engine, query: EncodedQuery, topK: number): Promise<Found> {
    const facts = { documents: this.documents.length, documentTokens: this.tokens.scales.length };
    if (query.tokens.length === 0 || this.documents.length === 0) return { hits: [], ...facts };
    const corpus = await this.corpus(engine);
    const { scores, indices, argmax } = await corpus.search(query.vectors, { topK, explain: true });
    const perHit = query.tokens.length;
    const hits = Array.from(indices, (document, i): Hit => {
      const winners = argmax!.subarray(i * perHit, (i + 1) * perHit);
      return { document, score: scores[i]!, ...this.documents[document]!, matches: this.#matches(document, query, winners) };
    });
    return { hits, ...facts };
  }

  #matches(document: number, query: EncodedQuery, winners: Int32Array): Match[] {
    const { offsets, spans } = this.tokens;
    return [...winners].flatMap((token, s) => {
      if (token < 0) return [];
      const row = offsets[document]! + token;
      const [start, end] = [spans[2 * row]!, spans[2 * row + 1]!];
      return [{ query: s, token, start, end, similarity: similarity(this.tokens, row, query.vectors, s) }];
    });
  }

  similarities(query: EncodedQuery, document: number): Similarities {
    const { offsets, spans } = this.tokens;
    const [first, end] = [offsets[document]!, offsets[document + 1]!];
    const { text } = this.documents[document]!;
    const columns = Array.from({ length: end - first }, (_, t) => text.slice(spans[2 * (first + t)], spans[2 * (first + t) + 1]) || "·");
    const values = new Float32Array(query.tokens.length * columns.length);
    const winners = new Int32Array(query.tokens.length).fill(-1);
    query.tokens.forEach((_, s) => {
      const row = values.subarray(s * columns.length, (s + 1) * columns.length);
      row.forEach((_, t) => (row[t] = similarity(this.tokens, first + t, query.vectors, s)));
      if (row.length > 0) winners[s] = row.indexOf(Math.max(...row));
    });
    return { rows: query.tokens, columns, values, winners };
  }

  /** Frees what the engine has of it. */
  async dispose(): Promise<void> {
    await this.#corpus?.then((corpus) => corpus.dispose(), () => {});
  }
}
