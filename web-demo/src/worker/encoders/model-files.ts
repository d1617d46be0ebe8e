/** The folder of a model: at an address, or chosen by the visitor. */
import type { ModelFiles } from "../../../../bindings-js/server/src/encoders/onnx-model.ts";
import type { ModelSource, Progress } from "../../protocol.ts";

/** Where models are kept once they are loaded; the service worker leaves it alone. */
const CACHE = "maxsim-demo-models";

export function modelFiles(source: ModelSource, report: (progress: Progress) => void): ModelFiles {
  return "url" in source ? remote(source.url, report) : local(source.files);
}

function local(chosen: readonly File[]): ModelFiles {
  // The first part of the path is the folder itself.
  const files = new Map(chosen.map((file) => [file.webkitRelativePath.split("/").slice(1).join("/") || file.name, file]));
  return {
    name: chosen[0]?.webkitRelativePath.split("/")[0] || "the chosen folder",
    has: async (file) => files.has(file),
    read: async (file) => {
      const found = files.get(file);
      return found && new Uint8Array(await found.arrayBuffer());
    },
  };
}

/** Throws a `TypeError` for what is neither an address nor `owner/name`, a model of the Hugging Face hub. */
function remote(address: string, report: (progress: Progress) => void): ModelFiles {
  const hub = /^[\w.-]+\/[\w.-]+$/.test(address);
  if (!hub && !/^https?:\/\//.test(address)) throw new TypeError(`expected an address (https://…) or owner/name, got ${address}`);
  const base = hub ? `https://huggingface.co/${address}/resolve/main/` : address.replace(/\/*$/, "/");
  const bodies = new Map<string, Promise<Response | undefined>>();
  const get = (file: string): Promise<Response | undefined> => {
    const known = bodies.get(file);
    if (known) return known;
    const response = load(base, file);
    bodies.set(file, response);
    return response;
  };
  return {
    name: hub ? address : base.replace(/\/$/, "").split("/").at(-1)!,
    has: async (file) => (await get(file)) !== undefined,
    read: async (file) => {
      const response = await get(file);
      bodies.delete(file);
      return response && bytes(response, (fraction) => report({ what: `Loading ${file}`, fraction }), base + file);
    },
  };
}

/** Undefined if there is no such file. */
async function load(base: string, file: string): Promise<Response | undefined> {
  const url = base + file;
  const cache = await caches.open(CACHE);
  const kept = await cache.match(url);
  if (kept) return kept;
  let response: Response;
  try {
    response = await fetch(url);
  } catch (cause) {
    // Of a model that was kept, all files are there that there were.
    if ((await cache.keys()).some((request) => request.url.startsWith(base))) return undefined;
    throw new Error(`${url} cannot be loaded: there is no connection, or its server does not let other pages read it (CORS)`, { cause });
  }
  if (response.status === 404 || response.status === 410) return undefined;
  if (!response.ok) throw new Error(`${url} cannot be loaded: ${response.status} ${response.statusText}`);
  // Servers of single-page applications answer with a page whatever they are asked for.
  return response.headers.get("Content-Type")?.startsWith("text/html") ? undefined : response;
}

async function bytes(response: Response, progress: (fraction: number | undefined) => void, url: string): Promise<Uint8Array> {
  const total = Number(response.headers.get("Content-Length")) || undefined;
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  const reader = response.body!.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
    // What is compressed on its way is longer than it says.
    progress(total && total >= length ? length / total : undefined);
  }
  const blob = new Blob(parts);
  await keep(url, blob).catch(() => {});
  return new Uint8Array(await blob.arrayBuffer());
}

/** So that the next visit needs no connection. That there is no room is no failure. */
async function keep(url: string, blob: Blob): Promise<void> {
  const cache = await caches.open(CACHE);
  if (await cache.match(url)) return;
  await cache.put(url, new Response(blob, { headers: { "Content-Length": String(blob.size), "Content-Type": "application/octet-stream" } }));
}
