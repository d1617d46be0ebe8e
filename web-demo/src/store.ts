/** What the page shows, and what happens when the visitor does something. */
import { effect, signal } from "@preact/signals";
import { proxy, wrap, type Remote } from "comlink";
import type { Answer, Backend, CollectionName, ModelSource, Progress, State } from "./protocol.ts";
import type { Library } from "./worker/library.ts";

/** Where everything is computed. */
const worker = new Worker(new URL("./worker/worker.ts", import.meta.url), { type: "module", name: "library" });
export const library: Remote<Library> = wrap<Library>(worker);

export type Page = "search" | "benchmark" | "device";
export interface Notice {
  readonly id: number;
  readonly kind: "info" | "problem";
  readonly text: string;
}

const PAGES: readonly Page[] = ["search", "benchmark", "device"];
const TOP_K = 10;
/** The index that was published with the page, if one was. */
export const published = __INDEX__;
const FIRST_QUERY = "frozen water falling from the sky";

const pageOf = (hash: string): Page => PAGES.find((page) => hash === `#${page}`) ?? "search";
const parameters = new URLSearchParams(location.search);

export const page = signal<Page>(pageOf(location.hash));
/** Undefined until the page is ready. */
export const state = signal<State>();
/** What keeps the page busy; searching goes on meanwhile. */
export const progress = signal<Progress>();
/** Whether {@link progress} is of something that can be cancelled. */
export const cancellable = signal(false);
/** Why nothing works at all. */
export const failure = signal<string>();
export const notices = signal<readonly Notice[]>([]);
export const query = signal(parameters.get("q") ?? FIRST_QUERY);
export const collection = signal<CollectionName>("glosses");
export const answer = signal<Answer>();
/** The collection that is being opened. */
export const wanted = signal<CollectionName>();
/** Whether a model is at work on what is shown. */
export const reranking = signal(false);
/** The backend that is being started. */
export const switching = signal<Backend>();

addEventListener("hashchange", () => (page.value = pageOf(location.hash)));
worker.addEventListener("error", (event) => (failure.value = event.message || "its worker cannot be loaded"));

let noticed = 0;
export function notify(kind: Notice["kind"], text: string): void {
  const id = ++noticed;
  notices.value = [...notices.value.slice(-4), { id, kind, text }];
  // What it says can be seen elsewhere, too.
  if (kind === "info") setTimeout(() => dismiss(id), 8000);
}
export const dismiss = (id: number): void => void (notices.value = notices.value.filter((notice) => notice.id !== id));

/** What the visitor chose before. Some private windows have no memory. */
const preference = {
  get: (): Backend | undefined => {
    try {
      const kept = localStorage.getItem("backend");
      return kept === "cpu" || kept === "wgpu" ? kept : undefined;
    } catch {
      return undefined;
    }
  },
  set: (backend: Backend): void => {
    try {
      localStorage.setItem("backend", backend);
    } catch {
      // Then it is asked for again next time.
    }
  },
};

/** What is under way says how far it is. Reports have a channel of their own: the last one may come after the work's end, and says nothing then. */
const report = proxy((value: Progress) => {
  if (progress.value) progress.value = value;
});

/** Does something that changes what there is, one at a time. */
async function change(work: () => Promise<State>, canCancel = false): Promise<void> {
  if (progress.value) return;
  progress.value = { what: "Working", fraction: undefined };
  cancellable.value = canCancel;
  try {
    state.value = await work();
  } catch (error) {
    if ((error as Error).name !== "AbortError") notify("problem", (error as Error).message);
  } finally {
    progress.value = undefined;
    cancellable.value = false;
  }
}

export async function start(): Promise<void> {
  try {
    progress.value = { what: "Loading", fraction: 0 };
    state.value = await library.start(preference.get(), report);
    if (!state.value.kept) notify("info", "This browser gives the page no storage: files are gone when it is closed.");
  } catch (error) {
    failure.value = (error as Error).message;
  } finally {
    progress.value = undefined;
  }
}

export async function setBackend(backend: Backend): Promise<void> {
  preference.set(backend);
  switching.value = backend;
  await change(() => library.setBackend(backend));
  switching.value = undefined;
  const { noWebgpu } = state.value!;
  if (backend === "wgpu" && noWebgpu !== undefined) notify("problem", `WebGPU cannot be used: ${noWebgpu}.`);
}

export function addFiles(files: readonly File[]): Promise<void> {
  if (files.length === 0) return Promise.resolve();
  return change(async () => {
    // Asks nobody in most browsers, and keeps the files when space gets scarce.
    void navigator.storage?.persist?.().catch(() => false);
    const { state: now, added } = await library.addFiles(files, report);
    for (const { name, problem, note } of added) {
      if (problem) notify("problem", `${name} was not added: ${problem}.`);
      else if (note) notify("info", `${name}: ${note}.`);
    }
    const good = added.filter(({ problem }) => problem === undefined);
    if (good.length > 0) {
      notify("info", good.length === 1 ? `${good[0]!.name} can be searched now.` : `${good.length} files can be searched now.`);
      collection.value = "files";
    }
    return now;
  });
}

/** Searches another collection from now on. */
export async function setCollection(name: CollectionName): Promise<void> {
  if (name === "index" && !state.value?.index) {
    wanted.value = name;
    await change(() => library.openIndex(new URL("meanings.mxi", document.baseURI).href, report));
    wanted.value = undefined;
    if (!state.value?.index) return;
  }
  collection.value = name;
}

export const removeFile = (id: string): Promise<void> => change(() => library.removeFile(id));
export const loadModel = (source: ModelSource): Promise<void> => change(() => library.loadModel(source, report), true);
export const unloadModel = (): Promise<void> => change(() => library.unloadModel());
export const cancel = (): void => void library.cancel();

// Searches as one types: one at a time, and the latest next.
let searching = false;
let again = false;

async function search(): Promise<void> {
  if (searching) {
    again = true;
    return;
  }
  searching = true;
  try {
    do {
      again = false;
      const [where, what] = [collection.value, query.value.trim()];
      answer.value = await library.search(where, what, TOP_K);
      if (answer.value.version !== state.value?.version && !progress.value) await lost();
      if (!again && state.value?.model !== undefined) void rerank(where, what);
    } while (again);
  } catch (error) {
    notify("problem", `The search failed: ${(error as Error).message}`);
  } finally {
    searching = false;
  }
}

/** Something changed that nobody asked for. */
async function lost(): Promise<void> {
  const before = state.value?.engine.backend;
  state.value = await library.state();
  if (before === "wgpu" && state.value.engine.backend === "cpu") notify("problem", "The GPU went away. Searching goes on on the CPU.");
}

/** What the model says comes when it is ready, if it is still asked for. */
async function rerank(where: CollectionName, what: string): Promise<void> {
  reranking.value = true;
  const current = (): boolean => where === collection.value && what === query.value.trim();
  try {
    const better = await library.rerank(where, what, TOP_K);
    if (better && current()) answer.value = better;
  } catch (error) {
    notify("problem", `The model failed: ${(error as Error).message}`);
  }
  if (current()) reranking.value = false;
}

effect(() => {
  if (!state.value) return;
  // What an answer depends on.
  void [query.value, collection.value];
  void search();
});

// The address can be shared and reloaded.
let addressed: ReturnType<typeof setTimeout> | undefined;
effect(() => {
  const q = query.value;
  clearTimeout(addressed);
  addressed = setTimeout(() => {
    const url = new URL(location.href);
    if (q.trim() === "" || q === FIRST_QUERY) url.searchParams.delete("q");
    else url.searchParams.set("q", q);
    history.replaceState(history.state, "", url);
  }, 400);
});
