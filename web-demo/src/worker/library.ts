/** Everything that computes: the page calls this on its worker, and never waits for more than a message. */
import { createEngine, MaxSimError, type Engine } from "@maxsim/web";
import type {
  Added, Answer, Backend, BenchmarkEvents, CollectionName, FactGroup, ModelSource, OwnFile, Progress, Similarities, State,
} from "../protocol.ts";
import { describe, requestAdapter } from "./adapter.ts";
import { benchmark } from "./benchmark.ts";
import { Collection, type Document, type Searchable } from "./collection.ts";
import { decode, MAX_FILE } from "./decode.ts";
import { deviceFacts } from "./device.ts";
import type { Encoder } from "./encoders/encoder.ts";
import { staticEncoder } from "./encoders/static.ts";
import { glosses } from "./glosses.ts";
import { passages } from "./passages.ts";
import { PublishedIndex } from "./published-index.ts";
import { Reranker } from "./reranker.ts";
import { Store, type About } from "./store.ts";
import { concat, encodeAll, parse, serialize, type TokenTable } from "./tokens.ts";

/** Bytes of all files together. */
const MAX_TEXT = 10 * 1024 * 1024;

/** Documents that the first stage hands to the second. */
const CANDIDATES = 100;

/** Texts that are encoded and kept together: the glosses, or one file. */
interface Source {
  readonly id: string;
  readonly documents: readonly Document[];
  readonly tokens: TokenTable;
}

interface FileSource extends Source {
  readonly about: OwnFile;
}

/** What lies on the engine. */
type OwnCollection = Exclude<CollectionName, "index">;

/** What searches use. It is replaced as a whole, so that a search sees parts that belong together. */
interface Now {
  readonly engine: Engine;
  readonly collections: Readonly<Record<OwnCollection, Collection>>;
  /** The index on the server, once somebody wanted to search it. */
  readonly index: PublishedIndex | undefined;
  /** The second stage, if the visitor brought a model for it. */
  readonly reranker: Reranker | undefined;
  readonly version: number;
}

type Report = (progress: Progress) => void;

function searchable({ collections, index }: Now, name: CollectionName): Searchable {
  const found = name === "index" ? index : collections[name];
  if (!found) throw new Error("the index is not open");
  return found;
}

export class Library {
  #now!: Now;
  #encoder!: Encoder;
  #store: Store | undefined;
  /** Name of the GPU, if there is one. */
  #gpu: string | undefined;
  #noWebgpu: string | undefined;
  #glosses!: Source;
  #files: readonly FileSource[] = [];
  /** What changes engine, files or model happens one after the other. Searches do not wait for it. */
  #changes: Promise<unknown> = Promise.resolve();
  #stopping: AbortController | undefined;
  #reranking: AbortController | undefined;

  /** Gets everything ready. Undefined: WebGPU where there is a GPU for it, else the CPU, which beats GPUs in software. */
  async start(wanted: Backend | undefined, report: Report): Promise<State> {
    return this.#change(async () => {
      report({ what: "Loading the encoder", fraction: 0 });
      const engine = requestAdapter().then((adapter) => {
        this.#gpu = adapter && describe(adapter.info);
        return this.#start(wanted ?? (adapter?.info.isFallbackAdapter ? "cpu" : "wgpu"));
      });
      const [texts, encoder, store] = await Promise.all([
        glosses(), staticEncoder((fraction) => report({ what: "Loading the encoder", fraction })), Store.open(),
      ]);
      this.#encoder = encoder;
      this.#store = store;
      this.#glosses = { ...texts, tokens: await this.#tokens(texts.id, texts.documents, report) };
      const kept = (await store?.files()) ?? [];
      for (const { id, about, text } of kept) this.#files = [...this.#files, await this.#file(id, about, text, report)];
      await this.#become({ engine: await engine });
    });
  }

  /** Computes on another backend from now on. */
  async setBackend(backend: Backend): Promise<State> {
    return this.#change(async () => {
      const { engine } = this.#now;
      await this.#become({ engine: await this.#start(backend) });
      await engine.dispose();
    });
  }

  async search(collection: CollectionName, query: string, topK: number): Promise<Answer> {
    return this.#with(async (now) => {
      const { engine, version } = now;
      const searched = searchable(now, collection);
      const started = performance.now();
      const encoded = await this.#encoder.encodeQuery(query);
      const encodedAt = performance.now();
      const hits = await searched.search(engine, encoded, topK);
      return {
        collection, version, query, tokens: encoded.tokens, hits, documents: searched.size, documentTokens: searched.tokenCount,
        encodeMs: encodedAt - started, searchMs: performance.now() - encodedAt,
        // Indexes are searched on the CPU.
        backend: collection === "index" ? "cpu" : (engine.info.backend as Backend),
      };
    });
  }

  /** The search with the model as second stage. Undefined without a model, and if a newer one began meanwhile. */
  async rerank(collection: CollectionName, query: string, topK: number): Promise<Answer | undefined> {
    this.#reranking?.abort();
    const { signal } = (this.#reranking = new AbortController());
    try {
      return await this.#with(async ({ engine, reranker, version }) => {
        if (!reranker || query === "") return undefined;
        const { documents, backend, hits } = await this.search(collection, query, CANDIDATES);
        signal.throwIfAborted();
        const found = await reranker.rerank(engine, query, hits, topK, signal);
        return { collection, version, query, documents, backend, ...found, model: reranker.model.name, candidates: hits.length };
      });
    } catch (error) {
      if (signal.aborted) return undefined;
      throw error;
    }
  }

  /** Of a hit of `answer`; undefined if what was searched is no longer there. */
  async similarities(answer: Pick<Answer, "version" | "collection" | "query" | "model">, document: number): Promise<Similarities | undefined> {
    const now = this.#now;
    if (answer.version !== now.version) return undefined;
    const searched = searchable(now, answer.collection);
    if (answer.model !== undefined) return now.reranker?.similarities(answer.query, await searched.text(document));
    return searched.similarities(await this.#encoder.encodeQuery(answer.query), document);
  }

  /** Reads, encodes and keeps files; those that are refused change nothing. A file replaces one of the same name. */
  async addFiles(files: readonly File[], report: Report): Promise<{ state: State; added: Added[] }> {
    const added: Added[] = [];
    const state = await this.#change(async () => {
      for (const file of files) added.push(await this.#add(file, report));
      await this.#become({});
    });
    return { state, added };
  }

  async removeFile(id: string): Promise<State> {
    return this.#change(async () => {
      await this.#forget(id);
      await this.#become({});
    });
  }

  /** Opens the index at `url`, if it is not open. */
  async openIndex(url: string, report: Report): Promise<State> {
    return this.#change(async () => {
      if (this.#now.index) return;
      const opened = await PublishedIndex.open(this.#encoder, url, (fraction) => report({ what: "Opening the index", fraction }));
      await this.#become({ index: opened });
    });
  }

  /** Has a ColBERT model rank what the table finds. Rejects with an `AbortError` after {@link cancel}. */
  async loadModel(source: ModelSource, report: Report): Promise<State> {
    return this.#change(async () => {
      const { signal } = (this.#stopping = new AbortController());
      const { onnxEncoder } = await import("./encoders/onnx.ts");
      const model = await onnxEncoder(source, report, signal);
      this.#now.reranker?.model.dispose();
      await this.#become({ reranker: new Reranker(model) });
    });
  }

  async unloadModel(): Promise<State> {
    return this.#change(async () => {
      this.#now.reranker?.model.dispose();
      await this.#become({ reranker: undefined });
    });
  }

  /** Facts about what is running; they change without being asked to when a GPU goes away. */
  state(): State {
    const { engine, index, reranker, version } = this.#now;
    const { backend, level, threads } = engine.info;
    const device = backend === "wgpu" ? this.#gpu! : `WebAssembly, ${level === "generic" ? "no SIMD" : level}`;
    return {
      engine: { backend: backend as Backend, device, level, threads },
      noWebgpu: this.#noWebgpu,
      encoder: this.#encoder.name,
      model: reranker?.model.name,
      version,
      glosses: this.#glosses.documents.length,
      index: index !== undefined,
      files: this.#files.map(({ about }) => about),
      kept: this.#store !== undefined,
    };
  }

  /** Ends {@link loadModel} and {@link benchmark}. */
  cancel(): void {
    this.#stopping?.abort();
  }

  async device(): Promise<FactGroup[]> {
    return this.#with(async ({ engine, collections }) => deviceFacts(engine, collections, await this.#encoder.encodeQuery("a test")));
  }

  /** Measures all backends on the glosses. Rejects with an `AbortError` after {@link cancel}. */
  async benchmark(query: string, sizes: readonly number[], tell: (event: BenchmarkEvents) => void): Promise<void> {
    const { signal } = (this.#stopping = new AbortController());
    await benchmark(this.#glosses.tokens, (await this.#encoder.encodeQuery(query)).vectors, sizes, tell, signal);
  }

  #change(work: () => Promise<void>): Promise<State> {
    const result = this.#changes.then(work).then(() => this.state());
    this.#changes = result.catch(() => {});
    return result;
  }

  async #start(wanted: Backend): Promise<Engine> {
    if (this.#gpu === undefined) this.#noWebgpu = "this browser offers no WebGPU adapter here";
    else if (wanted === "wgpu") {
      try {
        return await createEngine({ backend: "wgpu" });
      } catch (error) {
        this.#noWebgpu = (error as Error).message;
      }
    }
    return createEngine({ backend: "cpu" });
  }

  /** Runs `work`, again if what it used was replaced meanwhile. GPUs go away: then the CPU takes over. */
  async #with<T>(work: (now: Now) => Promise<T>): Promise<T> {
    for (;;) {
      const now = this.#now;
      try {
        return await work(now);
      } catch (error) {
        if (this.#now !== now) continue;
        if (!(error instanceof MaxSimError && error.code === "ERR_DEVICE_LOST")) throw error;
        await this.setBackend("cpu");
      }
    }
  }

  /** Has searches use these, and the sources as they are now. Documents are uploaded first, so that no search waits for it. */
  async #become(changed: Partial<Pick<Now, "engine" | "index" | "reranker">>): Promise<void> {
    const before = this.#now as Now | undefined;
    const { engine, index, reranker } = { ...(before as Now), ...changed };
    const collection = (name: OwnCollection, sources: readonly Source[]): Collection => {
      const old = before?.engine === engine ? before.collections[name] : undefined;
      const documents = sources.flatMap((source) => source.documents);
      // Sources never change: the same documents mean the same tokens.
      if (old?.documents.length === documents.length && documents.every((document, i) => document === old.documents[i])) return old;
      return new Collection(name, documents, concat(sources.map(({ tokens }) => tokens), this.#encoder.dim));
    };
    const collections = { glosses: collection("glosses", [this.#glosses]), files: collection("files", this.#files) };
    for (const one of Object.values(collections)) if (one.documents.length > 0) await one.corpus(engine);
    this.#now = { engine, collections, index, reranker, version: (before?.version ?? 0) + 1 };
    for (const old of Object.values(before?.collections ?? {})) if (!Object.values(collections).includes(old)) await old.dispose();
  }

  /** The tokens of texts, from where they were kept or by encoding them. */
  async #tokens(id: string, documents: readonly Document[], report: Report): Promise<TokenTable> {
    const { fingerprint, dim } = this.#encoder;
    const bytes = await this.#store?.tokens(id, fingerprint);
    const kept = bytes && parse(bytes);
    if (kept && kept.dim === dim && kept.offsets.length === documents.length + 1) return kept;
    const what = `Encoding ${documents.length.toLocaleString("en")} texts`;
    report({ what, fraction: 0 });
    const texts = documents.map(({ text }) => text);
    const tokens = await encodeAll(this.#encoder, texts, (done) => report({ what, fraction: done / texts.length }), new AbortController().signal);
    // It can be made again: that there was no room for it is no failure.
    await this.#store?.keepTokens(id, fingerprint, serialize(tokens)).catch(() => {});
    return tokens;
  }

  async #add(file: File, report: Report): Promise<Added> {
    const { name } = file;
    const megabytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
    if (file.size > MAX_FILE) return { name, problem: `it has ${megabytes(file.size)}; ${megabytes(MAX_FILE)} is the most` };
    report({ what: `Reading ${name}`, fraction: undefined });
    let bytes: Uint8Array;
    try {
      bytes = new Uint8Array(await file.arrayBuffer());
    } catch {
      return { name, problem: "it cannot be read" };
    }
    const decoded = decode(bytes);
    if ("problem" in decoded) return { name, problem: decoded.problem };
    const { text, encoding } = decoded;
    const others = this.#files.filter(({ about }) => about.name !== name);
    const room = MAX_TEXT - others.reduce((sum, { about }) => sum + about.bytes, 0);
    if (bytes.length > room) return { name, problem: `all files together may have ${megabytes(MAX_TEXT)}; remove some first` };
    const id = crypto.randomUUID();
    const about: About = { name, bytes: bytes.length, encoding, added: Date.now() };
    const source = await this.#file(id, about, text, report);
    const notes = encoding === "Windows-1252" ? ["it is not UTF-8 and was read as Windows-1252"] : [];
    try {
      await this.#store?.addFile(id, about, text);
    } catch (error) {
      notes.push(`it is gone when the page is closed: ${(error as Error).message}`);
    }
    for (const { about } of this.#files) if (about.name === name) await this.#forget(about.id);
    this.#files = [...this.#files, source];
    return notes.length > 0 ? { name, note: notes.join("; ") } : { name };
  }

  async #file(id: string, { name, bytes, encoding }: About, text: string, report: Report): Promise<FileSource> {
    const documents = passages(text).map((passage) => ({ title: name, place: `line ${passage.line}`, text: passage.text }));
    const tokens = await this.#tokens(id, documents, report);
    return { id, documents, tokens, about: { id, name, bytes, encoding, passages: documents.length } };
  }

  async #forget(id: string): Promise<void> {
    await this.#store?.removeFile(id);
    this.#files = this.#files.filter((file) => file.id !== id);
  }
}
