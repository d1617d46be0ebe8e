/** Texts kept in memory, encoded by the service's own encoder: searched like an index, without building one. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { MaxSimError, type Corpus, type DType, type Engine, type IndexHit, type IndexInfo, type MetadataValue, type TokensInput } from "@maxsim/node";
import { concat, type Encoded, type Encoder } from "../encoders/encoder.js";
import type { SearchJob } from "./searching.js";

/** A text and where it came from: `file:line`, or the file's path below its folder. */
interface Text {
  readonly source: string;
  readonly text: string;
}

/** Half the memory of f32; the encoders' own precision is lower than the difference. */
const STORAGE: DType = "f16";
const COLUMNS = [{ name: "source", type: "text" }, { name: "text", type: "text" }] as const;

/** Searched as an index is; it never changes, and has no expressions over its metadata. */
export class TextIndex {
  readonly #engine: Engine;
  readonly #corpus: Corpus;
  readonly #texts: readonly Text[];
  readonly #tokens: number;

  private constructor(engine: Engine, corpus: Corpus, texts: readonly Text[], tokens: number) {
    this.#engine = engine;
    this.#corpus = corpus;
    this.#texts = texts;
    this.#tokens = tokens;
  }

  /**
   * Reads and encodes a file with a text per line, or the .txt and .md files of a folder.
   *
   * @throws {MaxSimError} `ERR_IO` for what cannot be read, `ERR_FORMAT` for what holds no text.
   */
  static async open(engine: Engine, encoder: Encoder, path: string): Promise<TextIndex> {
    const texts = await readTexts(path);
    const parts: Encoded[] = [];
    for (const portion of portions(texts, encoder.maxBatch)) {
      parts.push(await encoder.encode("document", portion.map(({ text }) => text), new AbortController().signal));
    }
    const { vectors, offsets } = concat(parts);
    // Encoders give vectors the lengths they are to have.
    const corpus = await engine.corpus({ data: vectors, offsets, dim: encoder.dim, storage: STORAGE, normalize: false });
    return new TextIndex(engine, corpus, texts, offsets[offsets.length - 1]!);
  }

  info(): Pick<IndexInfo, "documents" | "dim" | "tokens" | "generation" | "ids" | "columns"> {
    const { count: documents, dim } = this.#corpus;
    return { documents, dim, tokens: this.#tokens, generation: 0, ids: "number", columns: COLUMNS };
  }

  /** The best texts of every query; every text is scored. Ids are positions. */
  async search(queries: TokensInput, { topK, normalize, explain, precision, filter, ids, signal }: SearchJob["options"] & { signal?: AbortSignal }): Promise<IndexHit[][]> {
    if (filter !== undefined) {
      const [expected, got] = ["none: texts in memory cannot be filtered; build an index of them for that", JSON.stringify(filter)];
      throw new MaxSimError("ERR_VALUE", `filter: expected ${expected}, got ${got}`, { argument: "filter", expected, got });
    }
    const wanted = ids && new Set([...ids].map(Number));
    const { scores, indices, shape, argmax, argmaxOffsets, argmaxShape } = await this.#engine.retrieve(queries, this.#corpus, {
      topK: wanted ? Math.max(this.#corpus.count, 1) : topK, normalize, explain, precision, signal,
    });
    const width = shape[shape.length - 1]!;
    const rows = argmaxShape?.[argmaxShape.length - 1];
    const winners = (hit: number): Int32Array | undefined =>
      argmaxOffsets ? argmax?.slice(argmaxOffsets[hit], argmaxOffsets[hit + 1]) : argmax?.slice(hit * rows!, (hit + 1) * rows!);
    return Array.from({ length: shape.length === 1 ? 1 : shape[0]! }, (_, query) => {
      const hits = Array.from({ length: width }, (_, rank) => query * width + rank);
      const chosen = wanted ? hits.filter((hit) => wanted.has(indices[hit]!)).slice(0, topK) : hits;
      return chosen.map((hit) => ({ id: BigInt(indices[hit]!), score: scores[hit]!, ...(explain && { winners: winners(hit)! }) }));
    });
  }

  async metadata(id: bigint | string): Promise<Record<string, MetadataValue> | undefined> {
    const found = this.#texts[Number(id)];
    return found && { ...found };
  }

  async refresh(): Promise<void> {}

  async dispose(): Promise<void> {
    await this.#corpus.dispose();
  }
}

async function readTexts(path: string): Promise<Text[]> {
  const fail = (error: unknown): never => {
    throw new MaxSimError("ERR_IO", `${path}: ${(error as Error).message}`, { what: path }, { cause: error });
  };
  const texts: Text[] = [];
  if ((await stat(path).catch(fail)).isDirectory()) {
    const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(fail);
    const files = entries.filter((entry) => entry.isFile() && /\.(txt|md)$/i.test(entry.name)).map((entry) => join(entry.parentPath ?? entry.path, entry.name));
    for (const file of files.sort()) texts.push({ source: relative(path, file), text: await readFile(file, "utf8").catch(fail) });
  } else {
    const lines = (await readFile(path, "utf8").catch(fail)).split(/\r?\n/);
    lines.forEach((text, i) => text.trim() !== "" && texts.push({ source: `${i + 1}`, text }));
  }
  if (texts.length > 0) return texts;
  throw new MaxSimError("ERR_FORMAT", `${path}: it holds no text`, { what: path });
}

/** Texts in portions of at most `characters`, but at least one text. */
function* portions(texts: readonly Text[], characters: number): Generator<Text[]> {
  let portion: Text[] = [];
  let size = 0;
  for (const text of texts) {
    if (portion.length > 0 && size + text.text.length > characters) {
      yield portion;
      [portion, size] = [[], 0];
    }
    portion.push(text);
    size += text.text.length;
  }
  if (portion.length > 0) yield portion;
}
