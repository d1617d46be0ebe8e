/** Where the files of an index are kept, and how they come into a module's memory and out of it. */
import type { Failure } from "@maxsim/api/binding";
import type { WasmFiles } from "./module.js";
import { download, failure, type Context } from "./service.js";

/** What an index is opened from, as the page hands it over. */
export type Place = { url: string } | { opfs: string } | { bytes: Uint8Array } | { blob: Blob } | { handle: FileSystemHandle };

/** A file in memory. */
export interface Content {
  name: string;
  bytes: Uint8Array;
}

/** All files, copied out of memory … */
export const contentsOf = (files: WasmFiles): Content[] => files.names().map((name) => ({ name, bytes: files.read(name, 0)! }));

/** … and into it. */
export function restore(files: WasmFiles, contents: Content[]): void {
  for (const { name, bytes } of contents) {
    files.begin(name, bytes.length);
    files.fill(name, 0, bytes);
    files.end(name);
  }
}

/** Bytes that are copied at a time. */
const CHUNK = 1 << 22;
/** Milliseconds that another writer is given to let go: one that was just disposed is about to. */
const PATIENCE = 1000;
/** How often reading a directory starts over because a writer removed a file meanwhile. */
const ATTEMPTS = 10;
/** Names that an index gives to files which it may remove. */
const NUMBERED = /^(codec|segment)-[0-9a-f]{8,}\.mxi$/;

export const MANIFEST = "manifest.mxi";
export const BUILDING = "building.mxi";

const about = (what: string, error: unknown): Failure => {
  const { name, message } = error as DOMException;
  const problem = name ? `${name}: ${message}` : `${error}`;
  return failure("ERR_IO", `${what}: ${problem}`, { what, problem });
};

/** What this browser or page may not do. */
const unsupported = (what: string, hint: string): Failure =>
  failure("ERR_UNSUPPORTED", `${what} is not supported: ${hint}`, { what, hint });

/** Work with files of `what`: what goes wrong is `ERR_IO`, unless it says otherwise. */
async function io<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw "code" in (error as object) && "details" in (error as object) ? error : about(what, error);
  }
}

const stopIf = (stop: boolean | undefined): void => {
  if (stop) throw failure("ERR_ABORTED" as Failure["code"], "aborted");
};

/** For Rust, which tells bytes read and to be read: what it throws ends the reading. */
export const telling = ({ poll, progress }: Context) => (loaded: number, total: number): void => {
  stopIf(poll?.());
  progress?.(loaded, total);
};

/** Bytes read so far, of all that will be. */
class Loaded {
  #context: Context;
  #loaded = 0;
  total: number;

  constructor(context: Context, total: number) {
    this.#context = context;
    this.total = total;
  }

  /** More bytes; this is where an open that is not wanted any more ends. */
  more(bytes: number): void {
    stopIf(this.#context.poll?.());
    this.#loaded += bytes;
    this.#context.progress?.(this.#loaded, Math.max(this.total, this.#loaded));
  }
}

/** Reads a file into memory, as `name`. */
async function readBlob(files: WasmFiles, name: string, blob: Blob, loaded: Loaded): Promise<void> {
  files.begin(name, blob.size);
  for (let start = 0; start < blob.size; start += CHUNK) {
    const part = new Uint8Array(await blob.slice(start, start + CHUNK).arrayBuffer());
    files.fill(name, start, part);
    loaded.more(part.length);
  }
  files.end(name);
}

/** A whole file that holds an index. */
export async function readPack(files: WasmFiles, name: string, from: Blob | Uint8Array | { url: string }, context: Context): Promise<void> {
  if (from instanceof Blob) return io(name, () => readBlob(files, "pack", from, new Loaded(context, from.size)));
  if ("url" in from) return io(name, () => readUrl(files, from.url, context));
  files.begin("pack", from.length);
  files.fill("pack", 0, from);
  files.end("pack");
}

async function readUrl(files: WasmFiles, url: string, context: Context): Promise<void> {
  const { body, headers } = await download(url);
  // Of a compressed response the length is that of fewer bytes: then it is not known beforehand.
  const length = headers.has("content-encoding") ? 0 : Number(headers.get("content-length"));
  const loaded = new Loaded(context, length);
  const parts: Uint8Array[] = [];
  let at = 0;
  if (length > 0) files.begin("pack", length);
  const reader = body!.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      loaded.more(value.length);
      if (length === 0) parts.push(value);
      else if (!files.fill("pack", at, value)) throw new Error(`more than the ${length} bytes that were announced`);
      at += value.length;
    }
  } finally {
    // Of one that is read to its end this does nothing.
    void reader.cancel().catch(() => {});
  }
  if (length === 0) {
    files.begin("pack", at);
    at = 0;
    for (const part of parts) {
      files.fill("pack", at, part);
      at += part.length;
    }
  } else if (at < length) {
    throw new Error(`${at} bytes came of the ${length} that were announced`);
  }
  files.end("pack");
}

/** A file that is read by ranges. */
export interface Ranges {
  size: number;
  read(start: number, end: number): Promise<Uint8Array>;
}

export const rangesOf = (blob: Blob): Ranges => ({
  size: blob.size,
  read: async (start, end) => new Uint8Array(await blob.slice(start, end).arrayBuffer()),
});

/** Where a file of an index says how long it is: in its header, of which so much is read first. */
const [LENGTH_AT, HEADER] = [16, 64];

/** The file at `url`; `undefined` if its server does not serve ranges. */
export async function rangesAt(url: string): Promise<Ranges | undefined> {
  let tag: string | null = null;
  let total: string | undefined;
  const read = async (start: number, end: number): Promise<Uint8Array> => {
    const headers: Record<string, string> = { Range: `bytes=${start}-${end - 1}` };
    // Of a file that was replaced meanwhile, everything comes.
    if (tag !== null) headers["If-Range"] = tag;
    const response = await download(url, { headers });
    if (response.status !== 206) {
      await response.body?.cancel();
      throw new Whole(tag === null ? "its server does not serve ranges" : "it was replaced since it was opened");
    }
    total ??= /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
    const etag = response.headers.get("etag");
    if (tag === null && etag !== null && !etag.startsWith("W/")) tag = etag;
    return new Uint8Array(await response.arrayBuffer());
  };
  try {
    const header = await read(0, HEADER);
    const short = header.length < HEADER;
    // A page of another origin may not see from the response how long the file is.
    const size = total ?? (short ? header.length : new DataView(header.buffer).getBigUint64(LENGTH_AT, true));
    return { size: Number(size), read };
  } catch (error) {
    if (error instanceof Whole) return undefined;
    throw error;
  }
}

/** A response of everything where a part was asked for. */
class Whole extends Error {}

/** What `Ranges` throws, as Rust takes it: a text. */
export const worded = (ranges: Ranges): Ranges["read"] => (start, end) =>
  ranges.read(start, end).catch((error: Failure | Error) => {
    throw "details" in error ? (error.details.problem ?? error.message) : `${error.name}: ${error.message}`;
  });

/** The origin private file system. */
function ownFiles(): Promise<FileSystemDirectoryHandle> {
  if (navigator.storage?.getDirectory !== undefined) return navigator.storage.getDirectory();
  throw unsupported("the origin private file system", "pages have it on HTTPS and on localhost, in browsers since 2023");
}

/** The directory or file at a path of the origin private file system; `undefined` if there is none. */
async function opfs(path: string, create: boolean): Promise<FileSystemHandle | undefined> {
  let at = await ownFiles();
  const names = path.split("/").filter((name) => name !== "");
  for (const [i, name] of names.entries()) {
    try {
      at = await at.getDirectoryHandle(name, { create });
    } catch (error) {
      const { name: kind } = error as DOMException;
      if (kind === "NotFoundError") return undefined;
      if (kind === "TypeMismatchError" && i === names.length - 1 && !create) return at.getFileHandle(name);
      throw error;
    }
  }
  return at;
}

/** A directory that keeps an index. */
export class Directory {
  readonly name: string;
  readonly #handle: FileSystemDirectoryHandle;
  readonly #lockName: string;
  #release: (() => void) | undefined;

  private constructor(handle: FileSystemDirectoryHandle, name: string, lockName: string) {
    this.#handle = handle;
    this.name = name;
    this.#lockName = lockName;
  }

  static async at(handle: FileSystemDirectoryHandle): Promise<Directory> {
    // Directories that people picked have no path that pages may know.
    const path = await (await ownFiles()).resolve(handle).catch(() => null);
    const name = path === null ? handle.name : `opfs:${path.join("/")}`;
    return new Directory(handle, name, `maxsim:${path === null ? "picked:" : ""}${name}`);
  }

  /** A file; `undefined` if there is none. */
  async #file(name: string): Promise<File | undefined> {
    try {
      const file = await (await this.#handle.getFileHandle(name)).getFile();
      // Made, and not written to when its page went away.
      return file.size === 0 ? undefined : file;
    } catch (error) {
      if ((error as DOMException).name === "NotFoundError") return undefined;
      throw error;
    }
  }

  /** Brings the files that these manifests rely on into memory, and lets others go; memory has what is unchanged already. */
  async load(files: WasmFiles, manifests: readonly string[], context: Context): Promise<void> {
    await io(this.name, async () => {
      for (let attempt = 1; !(await this.#loadOnce(files, manifests, context)) && attempt < ATTEMPTS; attempt++);
    });
  }

  /** Whether all files were there. */
  async #loadOnce(files: WasmFiles, manifests: readonly string[], context: Context): Promise<boolean> {
    const needed = new Map<string, number>();
    for (const name of manifests) {
      const file = await this.#file(name);
      if (file === undefined) {
        files.forget(name);
        continue;
      }
      await readBlob(files, name, file, new Loaded({ poll: context.poll }, 0));
      for (const { name: of, length } of files.needed(name)) needed.set(of, length);
    }
    const here = files.names();
    for (const name of here) if (!needed.has(name) && !manifests.includes(name)) files.forget(name);
    const missing = [...needed].filter(([name]) => !here.includes(name));
    const loaded = new Loaded(context, missing.reduce((bytes, [, length]) => bytes + length, 0));
    let all = true;
    for (const [name] of missing) {
      const file = await this.#file(name);
      if (file === undefined) all = false;
      else await readBlob(files, name, file, loaded);
    }
    return all;
  }

  /** Brings a file into memory, if it is there. */
  async peek(files: WasmFiles, name: string): Promise<void> {
    await io(this.name, async () => {
      const file = await this.#file(name);
      if (file !== undefined) await readBlob(files, name, file, new Loaded({}, 0));
    });
  }

  /** Makes the changes that memory has seen. On error none of them counts. */
  async keep(files: WasmFiles): Promise<void> {
    const written: string[] = [];
    try {
      await io(this.name, async () => {
        for (const { name, length } of files.changes!()) {
          if (length === undefined) await this.#remove(name);
          else {
            if (NUMBERED.test(name)) written.push(name);
            await this.#write(files, name, length);
          }
        }
      });
    } catch (error) {
      files.revert!();
      for (const name of written) await this.#remove(name);
      throw error;
    }
    files.made!();
  }

  async #write(files: WasmFiles, name: string, length: number): Promise<void> {
    const handle = await this.#handle.getFileHandle(name, { create: true });
    // What is written shows when it is closed, in one step.
    const stream = await handle.createWritable();
    try {
      for (let start = 0; start < length; start += CHUNK) {
        await stream.write(files.read(name, start, Math.min(start + CHUNK, length))! as Uint8Array<ArrayBuffer>);
      }
    } catch (error) {
      await stream.abort().catch(() => {});
      throw error;
    }
    await stream.close();
  }

  /** What cannot be removed, say because another page has it open, is swept up by a later writer. */
  async #remove(name: string): Promise<void> {
    await this.#handle.removeEntry(name).catch(() => {});
  }

  /** Removes what earlier writers left behind. */
  async sweep(files: WasmFiles): Promise<void> {
    const needed = new Set([MANIFEST, BUILDING].flatMap((name) => files.needed(name).map(({ name: of }) => of)));
    for await (const name of this.#handle.keys()) {
      if (NUMBERED.test(name) && !needed.has(name)) await this.#remove(name);
    }
  }

  get locked(): boolean {
    return this.#release !== undefined;
  }

  /** Takes the writer lock, which goes with this thread. */
  async lock(): Promise<void> {
    if (this.locked) return;
    if (!("createWritable" in FileSystemFileHandle.prototype)) {
      throw unsupported("writing an index", "this browser's file system has no createWritable");
    }
    await new Promise<void>((resolve, reject) => {
      const held = navigator.locks.request(this.#lockName, { signal: AbortSignal.timeout(PATIENCE) }, () =>
        new Promise<void>((release) => {
          this.#release = release;
          resolve();
        }),
      );
      held.catch(() => reject(failure("ERR_LOCKED", `${this.name} is locked by another writer`, { what: this.name })));
    });
  }

  release(): void {
    this.#release?.();
    this.#release = undefined;
  }
}

/** The directory, blob or other thing that a place names; `undefined` if there is none. */
export async function find(place: Place, create = false): Promise<Directory | Blob | Uint8Array | { url: string } | undefined> {
  if ("bytes" in place) return place.bytes;
  if ("url" in place) return place;
  if ("blob" in place) return place.blob;
  const handle = "opfs" in place ? await io(`opfs:${place.opfs}`, () => opfs(place.opfs, create)) : place.handle;
  if (handle === undefined) return undefined;
  if (handle.kind === "directory") return Directory.at(handle as FileSystemDirectoryHandle);
  return io(handle.name, () => (handle as FileSystemFileHandle).getFile());
}

/** How errors name a place. */
export function nameOf(place: Place): string {
  if ("url" in place) return place.url;
  if ("opfs" in place) return `opfs:${place.opfs}`;
  if ("handle" in place) return place.handle.name;
  return "blob" in place ? ((place.blob as File).name ?? "the given blob") : "the given bytes";
}
