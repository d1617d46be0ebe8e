/** Documents that are searched where they lie: an index on the server of the page, of which a search reads a part. */
import { createEngine, type Engine, type Index } from "@maxsim/web";
import type { Hit, Similarities } from "../protocol.ts";
import type { Searchable } from "./collection.ts";
import type { EncodedQuery, Encoder } from "./encoders/encoder.ts";
import { matches, similarities } from "./matches.ts";
import { encodeAll } from "./tokens.ts";

/** Documents whose residuals a search may read for. Texts are short here, so that most lie in a block of their own. */
const CANDIDATES = 64;

/** What `scripts/index.mjs` keeps with every document. */
interface Row {
  word: string;
  text: string;
}

export class PublishedIndex implements Searchable {
  readonly name = "index";
  readonly #encoder: Encoder;
  readonly #index: Index;
  readonly #engine: Engine;

  private constructor(encoder: Encoder, engine: Engine, index: Index) {
    this.#encoder = encoder;
    this.#engine = engine;
    this.#index = index;
  }

  /** Reads what every search needs. The rest, which is most of it, is read by range requests when it is needed. */
  static async open(encoder: Encoder, url: string, progress: (fraction: number) => void): Promise<PublishedIndex> {
    // Indexes are searched on the CPU, whatever the other documents are searched on.
    const engine = await createEngine({ backend: "cpu" });
    try {
      const index = await engine.openIndex(url, { lazy: true, onProgress: (loaded, total) => progress(total > 0 ? loaded / total : 0) });
      return new PublishedIndex(encoder, engine, index);
    } catch (error) {
      await engine.dispose();
      throw error;
    }
  }

  get size(): number {
    return this.#index.info().documents;
  }

  get tokenCount(): number {
    return this.#index.info().tokens;
  }

  async search(_: Engine, query: EncodedQuery, topK: number): Promise<Hit[]> {
    if (query.tokens.length === 0) return [];
    const { vectors: data } = query;
    const [found = []] = await this.#index.search({ data, dim: this.#encoder.dim }, {
      topK, explain: true, normalize: false,
      // A quarter of them is scored well.
      nFullScores: 4 * Math.max(CANDIDATES, topK),
    });
    const rows = await Promise.all(found.map(({ id }) => this.#row(Number(id))));
    const tokens = await encodeAll(this.#encoder, rows.map(({ text }) => text), () => {}, new AbortController().signal);
    return found.map(({ id, score, winners }, i) => {
      const { word: title, text } = rows[i]!;
      return { document: Number(id), title, place: "", text, score, matches: matches(tokens, i, query, winners!) };
    });
  }

  async similarities(query: EncodedQuery, document: number): Promise<Similarities> {
    const { text } = await this.#row(document);
    return similarities(await encodeAll(this.#encoder, [text], () => {}, new AbortController().signal), 0, text, query);
  }

  async text(document: number): Promise<string> {
    return (await this.#row(document)).text;
  }

  async dispose(): Promise<void> {
    await this.#engine.dispose();
  }

  async #row(document: number): Promise<Row> {
    const row = await this.#index.metadata(document);
    return { word: String(row?.["word"]), text: String(row?.["text"]) };
  }
}
