import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defaultClientConditions, defineConfig } from "vite";
import { offline } from "./scripts/offline.ts";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** What `scripts/index.mjs` says of the index, where there is one. */
const index = at("public/meanings.json");

export default defineConfig({
  // Works from any folder of any server.
  base: "./",
  // In a project of your own: `npm install @maxsim/web`, and nothing of this but `optimizeDeps`.
  resolve: {
    alias: { "@maxsim/web": at("../bindings-js/web/dist/index.js") },
    // ONNX Runtime with its WebAssembly in files of their own: threads are started from them.
    conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions],
  },
  optimizeDeps: { exclude: ["@maxsim/web"] },
  server: { fs: { allow: [".."] } },
  define: { __INDEX__: existsSync(index) ? readFileSync(index, "utf8") : "undefined" },
  build: { target: "es2022", assetsInlineLimit: 0, chunkSizeWarningLimit: 1000 },
  worker: { format: "es" },
  plugins: [offline()],
});
