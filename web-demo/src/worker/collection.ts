/** Documents that are searched together, and the corpus an engine has of them. */
import type { Corpus, Engine } from "@maxsim/web";
import type { CollectionName, Hit, Similarities } from "../protocol.ts";
import type { EncodedQuery } from "./encoders/encoder.ts";
import { matches, similarities } from "./matches.ts";
import type { TokenTable } from "./tokens.ts";

export interface Document {
  readonly title: string;
  readonly place: string;
  readonly text: string;
}

/** What can be searched. */
export interface Searchable {
  readonly name: CollectionName;
  /** Number of documents. */
  readonly size: number;
  readonly tokenCount: number;
  /** The best documents, best first. */
  search(engine: Engine, query: EncodedQuery, topK: number): Promise<Hit[]>;
  similarities(query: EncodedQuery, document: number): Promise<Similarities>;
  text(document: number): Promise<string>;
  dispose(): Promise<void>;
}

export class Collection implements Searchable {
  #corpus: Promise<Corpus> | undefined;

  constructor(readonly name: CollectionName, readonly documents: readonly Document[], readonly tokens: TokenTable) {}

  get size(): number {
    return this.documents.length;
  }

  get tokenCount(): number {
    return this.tokens.scales.length;
  }

  /** Uploads the documents the first time; a collection is of one engine. */
  corpus(engine: Engine): Promise<Corpus> {
    const { data, scales, offsets, dim } = this.tokens;
    // Encoders give unit vectors already, and a query token's length is its weight.
    return (this.#corpus ??= engine.corpus({ data, scales, offsets, dim, normalize: false }));
  }

  async search(engine: Engine, query: EncodedQuery, topK: number): Promise<Hit[]> {
    if (query.tokens.length === 0 || this.documents.length === 0) return [];
    const corpus = await this.corpus(engine);
    const { scores, indices, argmax } = await corpus.search(query.vectors, { topK, explain: true });
    const perHit = query.tokens.length;
    return Array.from(indices, (document, i) => {
      const winners = argmax!.subarray(i * perHit, (i + 1) * perHit);
      return { document, score: scores[i]!, ...this.documents[document]!, matches: matches(this.tokens, document, query, winners) };
    });
  }

  async similarities(query: EncodedQuery, document: number): Promise<Similarities> {
    return similarities(this.tokens, document, await this.text(document), query);
  }

  async text(document: number): Promise<string> {
    return this.documents[document]!.text;
  }

  /** Frees what the engine has of it. */
  async dispose(): Promise<void> {
    await this.#corpus?.then((corpus) => corpus.dispose(), () => {});
  }
}
