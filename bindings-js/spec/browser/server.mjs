// Serves the bindings, and folders of fixtures, as plain static files on a port of its own.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".wasm": "application/wasm",
  ".json": "application/json",
};

/** Headers under which a page may share memory with its workers. */
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/** What pages have put there, by path. `If-Range` and single ranges are heeded under `/put/`, not under `/whole/`. */
class Put {
  /** `{ bytes, tag }` by name. */
  files = new Map();
  /** Bytes of bodies that were sent. */
  sent = 0;

  async serve(request, response, [folder, name], url) {
    if (request.method === "PUT") {
      const parts = [];
      for await (const part of request) parts.push(part);
      this.files.set(name, { bytes: Buffer.concat(parts), tag: `"${this.files.size}-${Date.now()}"` });
      return response.writeHead(204).end();
    }
    const file = this.files.get(name);
    if (file === undefined) return response.writeHead(404).end();
    const { bytes, tag } = file;
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const fresh = [undefined, tag].includes(request.headers["if-range"]);
    if (folder === "whole" || first === undefined || !fresh) {
      response.writeHead(200, { "Content-Length": bytes.length });
      return this.#send(response, bytes, Number(url.searchParams.get("slowly")));
    }
    const part = bytes.subarray(Number(first), Number(last) + 1);
    if (part.length === 0) return response.writeHead(416, { "Content-Range": `bytes */${bytes.length}` }).end();
    const range = `bytes ${first}-${Number(first) + part.length - 1}/${bytes.length}`;
    response.writeHead(206, { "Content-Length": part.length, "Content-Range": range, ETag: tag });
    return this.#send(response, part, 0);
  }

  /** `slowly`: milliseconds between parts. */
  async #send(response, bytes, slowly) {
    for (let at = 0; at < bytes.length && !response.destroyed; at += 1 << 18) {
      const part = bytes.subarray(at, at + (1 << 18));
      this.sent += part.length;
      response.write(part);
      if (slowly) await new Promise((resolve) => setTimeout(resolve, slowly));
    }
    response.end();
  }
}

/**
 * `folders` are served under their names. `headers` are added to every response; with `isolated` in a page's query, those
 * that isolate it too.
 */
export async function serve({ folders = {}, headers = {} } = {}) {
  const put = new Put();
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    const path = normalize(decodeURIComponent(url.pathname)).replace(/^\/+/, "");
    const [first, ...rest] = path.split("/");
    if (["put", "whole"].includes(first)) return put.serve(request, response, [first, ...rest], url);
    const file = Object.hasOwn(folders, first) ? join(folders[first], ...rest) : join(ROOT, path);
    const found = await stat(file).catch(() => undefined);
    if (!found?.isFile() || path.includes("..")) return response.writeHead(404).end();
    const isolate = url.searchParams.has("isolated") || /[?&]isolated/.test(request.headers.referer ?? "");
    response.writeHead(200, {
      "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
      "Content-Length": found.size,
      ...(isolate ? { ...ISOLATED, "Cross-Origin-Resource-Policy": "same-origin" } : {}),
      ...headers,
    });
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { put, origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}
