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

/**
 * `folders` are served under their names. `headers` are added to every response; with `isolated` in a page's query, those
 * that isolate it too.
 */
export async function serve({ folders = {}, headers = {} } = {}) {
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    const path = normalize(decodeURIComponent(url.pathname)).replace(/^\/+/, "");
    const [first, ...rest] = path.split("/");
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
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}
