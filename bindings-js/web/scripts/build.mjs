// Bundles the package's JavaScript: pages without a bundler get files that import each other by relative paths only.
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const packageDir = fileURLToPath(new URL("..", import.meta.url));
const { version } = JSON.parse(readFileSync(`${packageDir}/package.json`, "utf8"));

// Chunks are named by their content, so that old ones would stay.
for (const file of readdirSync(`${packageDir}/dist`)) if (/\.js(\.map)?$/.test(file)) rmSync(`${packageDir}/dist/${file}`);
await build({
  absWorkingDir: packageDir,
  entryPoints: ["lib/index.ts", "lib/cpu.worker.ts", "lib/gpu.worker.ts", "lib/encoder.worker.ts", "lib/plaid.worker.ts"],
  outdir: "dist",
  chunkNames: "[name]-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  sourcemap: true,
  define: { __VERSION__: JSON.stringify(version) },
  logLevel: "warning",
});
