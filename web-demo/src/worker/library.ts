/** Everything that computes: the page calls this on its worker, and never waits for more than a message. */
import { createEngine, MaxSimError, type Engine } from "@maxsim/web";
import type {
  Added, Answer, Backend, BenchmarkEvents, CollectionName, FactGroup, OwnFile, Progress, Similarities, State,
} from "../protocol.ts";
import { describe, requestAdapter } from "./adapter.ts";
import { benchmark } from "./benchmark.ts";
import { Collection, type Document } from "./collection.ts";
import { decode, MAX_FILE } from "./decode.ts";
import { deviceFacts } from "./device.ts";
import type { Encoder } from "./encoders/encoder.ts";
import { staticEncoder } from "./encoders/static.ts";
import { glosses } from "./glosses.ts";
import { passages } from "./passages.ts";
import { Store, type About } from "./store.ts";
import { concat, encodeAll, parse, serialize, type TokenTable } from "./tokens.ts";

/** Characters of all files together. */
const MAX_TEXT = 10 * 1024 * 1024;

/** Texts that are encoded and kept together: the glosses, or one file. */
interface Source {
  readonly id: string;
  readonly documents: readonly Document[];
  tokens: TokenTable;
}

interface FileSource extends Source {
  readonly about: OwnFile;
}

type Report = (progress: Progress) => void;

/** What searches use. It is replaced as a whole, so that a search sees parts that belong together. */
interface Now {
  readonly engine: Engine;
  readonly encoder: Encoder;
  readonly collections: Readonly<Record<CollectionName, Collection>>;
  readonly version: number;
}

export class Library {
  #now!: Now;
  #store: Store | undefined;
  /** Name of the GPU, if there is one. */
  #gpu: string | undefined;
  #noWebgpu: string | undefined;
  #glosses!: Source;
  #files: FileSource[] = [];
  /** What changes engine, encoder or files happens one after the other. Searches do not wait for it. */
  #changes: Promise<unknown> = Promise.resolve();
  #stopping: AbortController | undefined;

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
      this.#store = store;
      this.#glosses = { ...texts, tokens: await this.#tokens(texts, encoder, report) };
      for (const { id, about, text } of (await store?.files()) ?? []) {
        this.#files.push(await this.#file(id, about, text, encoder, report));
      }
      await this.#become(await engine, encoder);
      return this.#state();
    });
  }

  /** Computes on another backend from now on. */
  async setBackend(backend: Backend): Promise<State> {
    return this.#change(async () => {
      const before = this.#now.engine;
      await this.#become(await this.#start(backend), this.#now.encoder);
      await before.dispose();
      return this.#state();
    });
  }

  async search(collection: CollectionName, query: string, topK: number): Promise<Answer> {
    return this.#with(async ({ engine, encoder, collections, version }) => {
      const started = performance.now();
      const encoded = await encoder.encodeQuery(query);
      const encodedAt = performance.now();
      const found = await collections[collection].search(engine, encoded, topK);
      return {
        collection, version, query, tokens: encoded.tokens, ...found,
        encodeMs: encodedAt - started, searchMs: performance.now() - encodedAt, backend: engine.info.backend as Backend,
      };
    });
  }

  /** Undefined if what was searched is no longer there. */
  async similarities(version: number, collection: CollectionName, query: string, document: number): Promise<Similarities | undefined> {
    const now = this.#now;
    const encoded = await now.encoder.encodeQuery(query);
    return version === now.version ? now.collections[collection].similarities(encoded, document) : undefined;
  }

  /** Reads, encodes and keeps files; those that are refused change nothing. A file replaces one of the same name. */
  async addFiles(files: readonly File[], report: Report): Promise<{ state: State; added: Added[] }> {
    return this.#change(async () => {
      const added: Added[] = [];
      for (const file of files) added.push(await this.#add(file, report));
      await this.#become(this.#now.engine, this.#now.encoder);
      return { state: this.#state(), added };
    });
  }

  async removeFile(id: string): Promise<State> {
    return this.#change(async () => {
      await this.#forget(id);
      await this.#become(this.#now.engine, this.#now.encoder);
      return this.#state();
    });
  }

  /** Ends {@link benchmark}. */
  cancel(): void {
    this.#stopping?.abort();
  }

  async device(): Promise<FactGroup[]> {
    return this.#with(async ({ engine, encoder, collections }) => deviceFacts(engine, collections, await encoder.encodeQuery("a test")));
  }

  /** Measures all backends on the glosses. Rejects with an `AbortError` after {@link cancel}. */
  async benchmark(query: string, sizes: readonly number[], tell: (event: BenchmarkEvents) => void): Promise<void> {
    const { signal } = (this.#stopping = new AbortController());
    const { encoder, collections } = this.#now;
    await benchmark(collections.glosses.tokens, (await encoder.encodeQuery(query)).vectors, sizes, tell, signal);
  }

  #change<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#changes.then(work);
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
        this.#noWebgpu = "the GPU went away";
        await this.setBackend("cpu");
      }
    }
  }

  #state(): State {
    const { backend, level, threads } = this.#now.engine.info;
    const device = backend === "wgpu" ? this.#gpu! : `WebAssembly, ${level === "generic" ? "no SIMD" : level}`;
    return {
      engine: { backend: backend as Backend, device, level, threads },
      noWebgpu: this.#noWebgpu,
      encoder: { name: this.#now.encoder.name, dim: this.#now.encoder.dim },
      version: this.#now.version,
      glosses: this.#glosses.documents.length,
      files: this.#files.map(({ about }) => about),
      kept: this.#store !== undefined,
    };
  }

  /** The tokens of a source, from where they were kept or by encoding it. */
  async #tokens(
    { id, documents }: Omit<Source, "tokens">, encoder: Encoder, report: Report, signal = new AbortController().signal,
  ): Promise<TokenTable> {
    const bytes = await this.#store?.tokens(id, encoder.fingerprint);
    const kept = bytes && parse(bytes);
    if (kept && kept.dim === encoder.dim && kept.offsets.length === documents.length + 1) return kept;
    const what = `Encoding ${documents.length.toLocaleString("en")} texts`;
    report({ what, fraction: 0 });
    const tokens = await encodeAll(encoder, documents.map(({ text }) => text), (done) => report({ what, fraction: done / documents.length }), signal);
    // It can be made again: that there was no room for it is no failure.
    await this.#store?.keepTokens(id, encoder.fingerprint, serialize(tokens)).catch(() => {});
    return tokens;
  }

  /** Has searches use these, and the sources as they are now. Documents are uploaded first, so that no search waits for it. */
  async #become(engine: Engine, encoder: Encoder): Promise<void> {
    const before = this.#now as Now | undefined;
    const same = (name: CollectionName, documents: readonly Document[], tokens: TokenTable): Collection => {
      const old = before?.engine === engine ? before.collections[name] : undefined;
      return old?.tokens === tokens ? old : new Collection(name, documents, tokens);
    };
    const collections = {
      glosses: same("glosses", this.#glosses.documents, this.#glosses.tokens),
      files: same("files", this.#files.flatMap(({ documents }) => documents), concat(this.#files.map(({ tokens }) => tokens), encoder.dim)),
    };
    for (const collection of Object.values(collections)) if (collection.documents.length > 0) await collection.corpus(engine);
    this.#now = { engine, encoder, collections, version: (before?.version ?? 0) + 1 };
    for (const old of Object.values(before?.collections ?? {})) if (!Object.values(collections).includes(old)) await old.dispose();
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
    const source = await this.#file(id, about, text, this.#now.encoder, report);
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

  async #file(id: string, { name, bytes, encoding }: About, text: string, encoder: Encoder, report: Report): Promise<FileSource> {
    const documents = passages(text).map((passage) => ({ title: name, place: `line ${passage.line}`, text: passage.text }));
    const tokens = await this.#tokens({ id, documents }, encoder, report);
    return { id, documents, tokens, about: { id, name, bytes, encoding, passages: documents.length } };
  }

  async #forget(id: string): Promise<void> {
    await this.#store?.removeFile(id);
    this.#files = this.#files.filter((file) => file.id !== id);
  }
}
