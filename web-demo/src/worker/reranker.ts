/** The second stage: a model that is too slow for everything ranks the few documents that the first stage found. */
import type { Engine } from "@maxsim/web";
import type { Hit, Similarities } from "../protocol.ts";
import type { Encoder } from "./encoders/encoder.ts";
import { matches, similarities } from "./matches.ts";
import { concat, encodeAll, type TokenTable } from "./tokens.ts";

/** Texts whose tokens are kept. The next letter that is typed finds most of the same ones. */
const MAX_KEPT = 4000;

export class Reranker {
  /** By text, the least recently used first. */
  readonly #kept = new Map<string, TokenTable>();

  constructor(readonly model: Encoder) {}

  /** The best `topK` of `candidates`. Rejects with `signal.reason`, between batches. */
  async rerank(
    engine: Engine, query: string, candidates: readonly Hit[], topK: number, signal: AbortSignal,
  ): Promise<{ hits: Hit[]; tokens: readonly string[]; documentTokens: number; encodeMs: number; searchMs: number }> {
    const started = performance.now();
    const encoded = await this.model.encodeQuery(query);
    const tokens = concat(await this.#tokens(candidates.map(({ text }) => text), signal), this.model.dim);
    const encodedAt = performance.now();
    const { data, scales, offsets, dim } = tokens;
    const { scores, argmax } = await engine.maxsim({ data: encoded.vectors, dim }, { data, scales, offsets, dim }, { argmax: true, signal });
    const perHit = encoded.tokens.length;
    const hits = candidates.map((hit, i) => {
      const winners = argmax!.subarray(i * perHit, (i + 1) * perHit);
      return { ...hit, score: scores[i]!, matches: matches(tokens, i, encoded, winners) };
    });
    return {
      hits: hits.sort((a, b) => b.score - a.score).slice(0, topK),
      tokens: encoded.tokens, documentTokens: scales.length, encodeMs: encodedAt - started, searchMs: performance.now() - encodedAt,
    };
  }

  async similarities(query: string, text: string): Promise<Similarities> {
    const [encoded, tokens] = [await this.model.encodeQuery(query), await this.#tokens([text], new AbortController().signal)];
    return similarities(tokens[0]!, 0, text, encoded);
  }

  async #tokens(texts: readonly string[], signal: AbortSignal): Promise<TokenTable[]> {
    const missing = [...new Set(texts)].filter((text) => !this.#kept.has(text));
    for (let start = 0; start < missing.length; start += this.model.batch) {
      signal.throwIfAborted();
      const batch = missing.slice(start, start + this.model.batch);
      const { dim, data, scales, offsets, spans } = await encodeAll(this.model, batch, () => {}, signal);
      batch.forEach((text, i) => {
        const [first, end] = [offsets[i]!, offsets[i + 1]!];
        this.#kept.set(text, {
          dim, data: data.slice(first * dim, end * dim), scales: scales.slice(first, end),
          offsets: Uint32Array.of(0, end - first), spans: spans.slice(2 * first, 2 * end),
        });
      });
    }
    const tables = texts.map((text) => {
      const table = this.#kept.get(text)!;
      this.#kept.delete(text);
      this.#kept.set(text, table);
      return table;
    });
    for (const text of this.#kept.keys()) {
      if (this.#kept.size <= MAX_KEPT) break;
      this.#kept.delete(text);
    }
    return tables;
  }
}
