/** `Index` and `buildIndex` over a native binding. */
import type * as api from "../index.js";
import type {
  BuildIndexOptions, CallOptions, DocumentId, EncoderIdentity, IndexAddOptions, IndexBatch, IndexHit, IndexInfo, IndexSearchOptions,
  MetadataValue, OpenIndexOptions, QueryInput, Selection,
} from "../index.js";
import {
  argumentError, boolean, CALL, callback, count, describe, listOf, oneOf, pinned, settings, text, typedArrayName, type Schema,
} from "./check.js";
import { disposed, settle, type Host } from "./host.js";
import type {
  NativeBuild, NativeEngine, NativeIndex, RawBatch, RawBuildState, RawIds, RawIndexSource, RawSelection, RawTokens, RawValue,
} from "./native.js";
import { held, tokens } from "./tokens.js";

const any = (value: unknown): never => value as never;
const number = (value: unknown, argument: string): number => {
  if (typeof value === "number") return value;
  throw argumentError("ERR_VALUE", argument, "a number", describe(value));
};
/** An encoder's identity alone, of an object that may be an encoder. */
function encoder(value: unknown, argument: string): EncoderIdentity {
  const { name, location, fingerprint } = (value ?? {}) as Partial<EncoderIdentity>;
  if (typeof name !== "string" || !["string", "undefined"].includes(typeof location)) {
    throw argumentError("ERR_VALUE", argument, "{ name, location, fingerprint }", describe(value));
  }
  if (typeof fingerprint === "bigint" && fingerprint >= 0n && fingerprint < U64_END) {
    return location === undefined ? { name, fingerprint } : { name, location, fingerprint };
  }
  throw argumentError("ERR_VALUE", `${argument}.fingerprint`, "a bigint from 0, below 2⁶⁴", describe(fingerprint));
}

const told = ({ name, location, fingerprint }: EncoderIdentity): string =>
  `${name}${location && location !== name ? ` of ${location}` : ""} (fingerprint ${fingerprint.toString(16).padStart(16, "0")})`;

const CHOICE: Schema<Selection> = { filter: text, parameters: listOf(any), ids: any };
const SEARCH: Schema<IndexSearchOptions> = {
  topK: count, nIvfProbe: count, nFullScores: count, centroidScoreThreshold: number, exact: boolean, normalize: boolean,
  explain: boolean, precision: oneOf("default", "exact", "fast", "int8"), encoder, ...CHOICE, ...CALL,
};
const ADD: Schema<IndexAddOptions> = { replace: boolean, encoder, ...CALL };
const OPEN: Schema<OpenIndexOptions> = { lazy: boolean, onProgress: callback, ...CALL };
const BATCH: Schema<IndexBatch> = { documents: any, ids: any, metadata: any };
const BUILD: Schema<BuildIndexOptions> = {
  path: any, documents: callback, ids: oneOf("number", "text"), nbits: count, centroids: count, iterations: count,
  seed: count, replace: boolean, source: text, encoder, onProgress: callback, ...CALL,
};
const U64_END = 2n ** 64n;
const I64_END = 2n ** 63n;

/** `Symbol.asyncDispose` is younger than some of the runtimes and is then filled in by compilers under this name. */
const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");

function ids(value: unknown, argument: string): RawIds {
  if (typedArrayName(value) === "BigUint64Array") return { numbers: (value as BigUint64Array).slice() };
  if (!Array.isArray(value)) throw argumentError("ERR_VALUE", argument, "an array of ids", describe(value));
  if (value.length > 0 && typeof value[0] === "string") {
    const wrong = value.findIndex((id) => typeof id !== "string");
    if (wrong < 0) return { texts: value as string[] };
    throw argumentError("ERR_INDEX", argument, "a text, as those before", describe(value[wrong]), wrong);
  }
  return {
    numbers: BigUint64Array.from(value as unknown[], (id, i) => {
      if (Number.isSafeInteger(id) && (id as number) >= 0) return BigInt(id as number);
      if (typeof id === "bigint" && id >= 0n && id < U64_END) return id;
      throw argumentError("ERR_INDEX", argument, "an integer from 0, below 2⁶⁴ as bigint and up to 2⁵³ as number", describe(id), i);
    }),
  };
}

function rawValue(name: string, value: unknown, argument: string, position: number): RawValue {
  switch (typeof value) {
    case "boolean": return { name, bool: value };
    case "string": return { name, text: value };
    case "number": return { name, float: value };
    case "bigint":
      if (value >= -I64_END && value < I64_END) return { name, int: value };
      throw argumentError("ERR_INDEX", argument, `an integer of 64 bits for ${JSON.stringify(name)}`, describe(value), position);
    default:
      if (value === null || value === undefined) return { name };
      throw argumentError("ERR_INDEX", argument, `a boolean, string, number, bigint or null for ${JSON.stringify(name)}`, describe(value), position);
  }
}

function rows(value: unknown): RawValue[][] {
  if (!Array.isArray(value)) throw argumentError("ERR_VALUE", "metadata", "an array of rows", describe(value));
  return value.map((row: unknown, i) => {
    if (typeof row !== "object" || row === null || Array.isArray(row)) {
      throw argumentError("ERR_INDEX", "metadata", "an object", describe(row), i);
    }
    return Object.entries(row).map(([name, cell]) => rawValue(name, cell, "metadata", i));
  });
}

function batch(value: unknown): RawBatch {
  if (typeof value !== "object" || value === null) {
    throw argumentError("ERR_VALUE", "batch", "{ documents, ids, metadata }", describe(value));
  }
  const given = settings<{ [K in keyof IndexBatch]?: unknown }>(value, "batch", BATCH as Schema<{ [K in keyof IndexBatch]?: unknown }>);
  const raw: RawBatch = { documents: tokens(given.documents, "documents") };
  if (given.ids !== undefined) raw.ids = ids(given.ids, "ids");
  if (given.metadata !== undefined) raw.metadata = rows(given.metadata);
  return raw;
}

function selection({ filter, parameters, ids: chosen }: Selection): RawSelection {
  const raw: RawSelection = {};
  if (filter !== undefined) raw.filter = filter;
  if (parameters !== undefined) raw.parameters = parameters.map((value, i) => rawValue("?", value, "parameters", i));
  if (parameters !== undefined && filter === undefined) {
    throw argumentError("ERR_VALUE", "parameters", "a filter to go with", "none");
  }
  if (chosen !== undefined) raw.ids = ids(chosen, "ids");
  return raw;
}

const value = ({ bool, int, float, text: string }: RawValue): MetadataValue => bool ?? int ?? float ?? string ?? null;

const idAt = ({ numbers, texts }: RawIds, i: number): DocumentId => numbers?.[i] ?? texts![i]!;

class Index implements api.Index {
  readonly #host: Host;
  readonly #native: NativeIndex;
  #disposed = false;

  constructor(host: Host, native: NativeIndex) {
    this.#host = host;
    this.#native = native;
  }

  #check(): void {
    if (this.#disposed) throw disposed("index");
  }

  /** Whether vectors of `given` can be compared with those of this index. */
  #compare(given: EncoderIdentity | undefined): void {
    const { encoder: own } = this.#native.info();
    if (given === undefined || own === undefined || own.fingerprint === given.fingerprint) return;
    throw argumentError("ERR_VALUE", "encoder", `${told(own)}, which encoded the documents of this index`, told(given));
  }

  info(): IndexInfo {
    this.#check();
    return this.#native.info();
  }

  async search(query: QueryInput, options: IndexSearchOptions): Promise<IndexHit[][]> {
    this.#check();
    const { signal, filter, parameters, ids: chosen, topK, encoder: from, ...rest } = settings<IndexSearchOptions>(options, "options", SEARCH);
    // No default: how many hits are wanted is the question.
    if (topK === undefined) throw argumentError("ERR_VALUE", "topK", "at least 1", "none");
    this.#compare(from);
    const which = selection({ filter, parameters, ids: chosen });
    const q = tokens(query, "query", this.#native.info().dim);
    const found = await settle(this.#host, [held(q)], signal, (cancel) =>
      this.#native.search(q, { ...rest, topK, which }, cancel),
    );
    const { offsets, scores, winners } = found;
    const width = winners === undefined ? 0 : winners.length / scores.length;
    const hit = (i: number): IndexHit => {
      const plain = { id: idAt(found.ids, i), score: scores[i]! };
      return winners === undefined ? plain : { ...plain, winners: winners.slice(i * width, (i + 1) * width) };
    };
    return Array.from({ length: offsets.length - 1 }, (_, query) =>
      Array.from({ length: offsets[query + 1]! - offsets[query]! }, (_, rank) => hit(offsets[query]! + rank)),
    );
  }

  async add(documents: IndexBatch, options?: IndexAddOptions): Promise<number> {
    this.#check();
    const { signal, replace, encoder: from } = settings<IndexAddOptions>(options, "options", ADD);
    this.#compare(from);
    const raw = batch(documents);
    const { count: replaced } = await settle(this.#host, [held(raw.documents)], signal, (cancel) =>
      this.#native.add(raw, replace ?? false, cancel),
    );
    return replaced;
  }

  async delete(which: Selection, options?: CallOptions): Promise<number> {
    this.#check();
    const { signal } = settings<CallOptions>(options, "options", CALL);
    const chosen = settings<Selection>(which, "which", CHOICE);
    if (chosen.filter === undefined && chosen.ids === undefined) {
      throw argumentError("ERR_VALUE", "which", "{ ids } or { filter }", "neither");
    }
    const raw = selection(chosen);
    return (await settle(this.#host, [], signal, (cancel) => this.#native.delete(raw, cancel))).count;
  }

  async compact(options?: CallOptions): Promise<void> {
    this.#check();
    const { signal } = settings<CallOptions>(options, "options", CALL);
    await settle(this.#host, [], signal, (cancel) => this.#native.compact(cancel));
  }

  async metadata(id: DocumentId | number): Promise<Record<string, MetadataValue> | undefined> {
    this.#check();
    const raw = ids([id], "id");
    const { rows: found } = await settle(this.#host, [], undefined, () => this.#native.metadata(raw));
    return found[0] ? Object.fromEntries(found[0].map((cell) => [cell.name, value(cell)])) : undefined;
  }

  async refresh(): Promise<void> {
    this.#check();
    await settle(this.#host, [], undefined, () => this.#native.refresh());
  }

  async verify(): Promise<void> {
    this.#check();
    await settle(this.#host, [], undefined, () => this.#native.verify());
  }

  async pack(): Promise<Uint8Array> {
    this.#check();
    return (await settle(this.#host, [], undefined, () => this.#native.pack())).bytes;
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#native.dispose();
  }

  [asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

const isHandle = (value: unknown): value is api.FileHandleLike =>
  typeof value === "object" && value !== null && ["file", "directory"].includes((value as api.FileHandleLike).kind);

/** Where an index is, as far as it can be told without looking. */
function sourceOf({ filePath }: Host, value: unknown): RawIndexSource {
  if (typeof value === "string") return value;
  if (ArrayBuffer.isView(value)) {
    const { buffer, byteOffset, byteLength } = value;
    return pinned(new Uint8Array(buffer, byteOffset, byteLength), "source");
  }
  if (Object.prototype.toString.call(value) === "[object ArrayBuffer]") return pinned(new Uint8Array(value as ArrayBuffer), "source");
  const { href, slice } = (value ?? {}) as Partial<api.UrlLike & api.BlobLike>;
  if (typeof href === "string") {
    if (filePath === undefined) return href;
    if (href.startsWith("file:")) return filePath(href);
  }
  if (filePath === undefined && (isHandle(value) || typeof slice === "function")) return value as api.FileHandleLike | api.BlobLike;
  const expected = filePath === undefined ? "a URL, opfs:path, a handle, a Blob or bytes" : "a path, a file: URL or bytes";
  throw argumentError("ERR_VALUE", "source", expected, describe(value));
}

export async function openIndex(host: Host, engine: NativeEngine, source: unknown, options: unknown): Promise<api.Index> {
  const { lazy = false, onProgress, signal } = settings<OpenIndexOptions>(options, "options", OPEN);
  const from = sourceOf(host, source);
  return new Index(host, await settle(host, [], signal, (cancel) => engine.openIndex(from, lazy, onProgress, cancel)));
}

/** Documents of a batch. */
function countOf({ offsets, shape }: RawTokens): number {
  if (offsets !== undefined) return Math.max(offsets.length - 1, 0);
  return shape?.length === 3 ? shape[0]! : 1;
}

export async function buildIndex(host: Host, engine: NativeEngine, options: unknown): Promise<api.Index> {
  const { path, documents, onProgress, signal, ...rest } = settings<BuildIndexOptions>(options, "options", BUILD);
  if (typeof path !== "string" && (host.filePath !== undefined || !isHandle(path) || path.kind !== "directory")) {
    throw argumentError("ERR_VALUE", "path", "a directory", path === undefined ? "none" : describe(path));
  }
  if (documents === undefined) throw argumentError("ERR_VALUE", "documents", "a function that gives batches", "none");
  if (signal?.aborted) throw signal.reason;
  const build = await settle(host, [], undefined, () => engine.createBuild(path, rest));
  try {
    const native = await run(host, build, { documents, onProgress, signal });
    return new Index(host, native);
  } finally {
    build.dispose();
  }
}

type Run = Pick<BuildIndexOptions, "documents" | "onProgress" | "signal">;

async function run(host: Host, build: NativeBuild, { documents, onProgress, signal }: Run): Promise<NativeIndex> {
  let state: RawBuildState = await settle(host, [], signal, () => build.state());
  if (!state.trained) {
    for await (const given of documents()) {
      const raw = batch(given);
      state = await settle(host, [held(raw.documents)], signal, (cancel) => build.sample(raw.documents, cancel));
      onProgress?.({ phase: "sampling", documents: state.documents });
    }
    onProgress?.({ phase: "training", documents: state.documents, total: state.documents });
    state = await settle(host, [], signal, (cancel) => build.train(cancel));
  }
  // Of a build that is gone on with: batches that an earlier one has finished.
  let passed = 0;
  const done = state.done;
  for await (const given of documents()) {
    const raw = batch(given);
    if (passed < done) {
      passed += countOf(raw.documents);
      if (passed > done) {
        throw argumentError("ERR_VALUE", "documents", "the same batches as in the build that is gone on with", "others");
      }
      continue;
    }
    state = await settle(host, [held(raw.documents)], signal, (cancel) => build.add(raw, cancel));
    onProgress?.({ phase: "encoding", documents: state.done, total: state.documents });
  }
  return settle(host, [], undefined, () => build.finish());
}
