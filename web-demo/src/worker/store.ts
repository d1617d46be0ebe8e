/**
 * What the page keeps on this machine, in its origin private file system:
 *
 *     maxsim-demo/files/<id>/text, about.json     files of the visitor
 *     maxsim-demo/tokens/<source>.<encoder>       token vectors, which can be made again
 *
 * `about.json` is written last: a folder without it is what an interrupted visit left, and goes.
 */

/** What is known of a file. */
export interface About {
  readonly name: string;
  readonly bytes: number;
  readonly encoding: string;
  /** Milliseconds since 1970; files are listed in this order. */
  readonly added: number;
}

type Folder = FileSystemDirectoryHandle;

export class Store {
  readonly #files: Folder;
  readonly #tokens: Folder;

  private constructor(files: Folder, tokens: Folder) {
    this.#files = files;
    this.#tokens = tokens;
  }

  /** The store, or undefined where the browser gives none, as in some private windows. */
  static async open(): Promise<Store | undefined> {
    try {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("maxsim-demo", { create: true });
      const [files, tokens] = await Promise.all(["files", "tokens"].map((name) => root.getDirectoryHandle(name, { create: true })));
      return new Store(files!, tokens!);
    } catch {
      return undefined;
    }
  }

  async files(): Promise<{ id: string; about: About; text: string }[]> {
    const found = [];
    for await (const id of this.#files.keys()) {
      try {
        const folder = await this.#files.getDirectoryHandle(id);
        const about = JSON.parse(await (await read(folder, "about.json")).text()) as About;
        found.push({ id, about, text: await (await read(folder, "text")).text() });
      } catch {
        await this.removeFile(id);
      }
    }
    return found.sort((a, b) => a.about.added - b.about.added);
  }

  async addFile(id: string, about: About, text: string): Promise<void> {
    const folder = await this.#files.getDirectoryHandle(id, { create: true });
    await write(folder, "text", new Blob([text]));
    await write(folder, "about.json", new Blob([JSON.stringify(about)]));
  }

  async removeFile(id: string): Promise<void> {
    await this.#files.removeEntry(id, { recursive: true }).catch(missing);
    for await (const name of this.#tokens.keys()) {
      if (name.startsWith(`${id}.`)) await this.#tokens.removeEntry(name).catch(missing);
    }
  }

  /** Undefined if there are none. */
  async tokens(source: string, encoder: string): Promise<ArrayBuffer | undefined> {
    try {
      return await (await read(this.#tokens, `${source}.${encoder}`)).arrayBuffer();
    } catch {
      return undefined;
    }
  }

  async keepTokens(source: string, encoder: string, tokens: Blob): Promise<void> {
    await write(this.#tokens, `${source}.${encoder}`, tokens);
  }
}

const missing = (error: DOMException): void => {
  if (error.name !== "NotFoundError") throw error;
};

const read = async (folder: Folder, name: string): Promise<File> => (await folder.getFileHandle(name)).getFile();

/** What only workers have, and so TypeScript's library for pages has not; all browsers have it there. */
interface WorkerFileHandle extends FileSystemFileHandle {
  createSyncAccessHandle(): Promise<{
    truncate(size: number): void | Promise<void>;
    write(bytes: ArrayBuffer): number | Promise<number>;
    flush(): void | Promise<void>;
    close(): void | Promise<void>;
  }>;
}

async function write(folder: Folder, name: string, blob: Blob): Promise<void> {
  const file = (await folder.getFileHandle(name, { create: true })) as WorkerFileHandle;
  const handle = await file.createSyncAccessHandle();
  try {
    // Older browsers answer with promises.
    await handle.truncate(0);
    await handle.write(await blob.arrayBuffer());
    await handle.flush();
  } finally {
    await handle.close();
  }
}
