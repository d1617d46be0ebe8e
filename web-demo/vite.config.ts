import { fileURLToPath } from "node:url";
import { defaultClientConditions, defineConfig } from "vite";
import { offline } from "./scripts/offline.ts";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

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
  build: { target: "es2022", assetsInlineLimit: 0, chunkSizeWarningLimit: 1000 },
  worker: { format: "es" },
  plugins: [offline()],
});
