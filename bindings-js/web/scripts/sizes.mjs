// What a page downloads, compressed with gzip, against what it may be; and what must not be in a module.
import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { FOLDERS } from "./machine.mjs";

const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const compressed = (file) => gzipSync(readFileSync(dist + file), { level: 9 }).length;

/** A JavaScript file and everything it imports at once. */
function script(file, seen = new Set()) {
  if (seen.has(file)) return seen;
  seen.add(file);
  for (const [, imported] of readFileSync(dist + file, "utf8").matchAll(/(?:from|import)\s*"\.\/([^"]+\.js)"/g)) script(imported, seen);
  return seen;
}

const sum = (files) => [...files].reduce((bytes, file) => bytes + compressed(file), 0);

/** The JavaScript of a module that its worker chooses, other than `files`. */
function chosen(glue, files) {
  const chunk = new RegExp(`^${glue}-[0-9A-Z]{8}\\.js$`);
  const found = readdirSync(dist).filter((file) => chunk.test(file) && !files.has(file));
  // What chooses, on the page's thread, has such a name, too; it is small.
  return found.sort((a, b) => compressed(b) - compressed(a))[0];
}

/** What a worker loads: its files, a module, and that module's JavaScript where the worker chooses among several. */
function loaded(worker, module, glue) {
  const files = script(worker);
  if (glue !== undefined) script(chosen(glue, files), files);
  return [...files, module];
}

/** The page's part and workers' parts, each file once. */
const together = (...workers) => sum(new Set([...script("index.js"), ...workers.flatMap((parts) => loaded(...parts))]));
const engine = (...parts) => together(parts);

/** What comes on top of the page's part. */
const beside = (...parts) => sum(loaded(...parts).filter((file) => !script("index.js").has(file)));

const KIB = 1024;
const [GPU, CPU] = [["gpu.worker.js", "gpu.wasm", "gpu"], ["cpu.worker.js", "cpu-simd.wasm", "cpu"]];
// The bounds are what was reached, so that it does not grow unseen.
const rows = [
  { what: "WebGPU engine, page's part included", bytes: together(GPU), aim: 80, most: 114.5 * KIB },
  { what: "with the CPU to fall back to", bytes: together(GPU, CPU), aim: 130, most: 189 * KIB },
  { what: "with searches of an index on the GPU", bytes: together(GPU, ["plaid.worker.js", "plaid-gpu.wasm", "plaid-gpu"]), aim: 160, most: 278 * KIB },
  { what: "the GPU's module and its JavaScript alone", bytes: sum(["gpu.wasm", chosen("gpu", script("gpu.worker.js"))]), most: 98.5 * KIB },
  { what: "gradients and the rest on the GPU, beside it", bytes: beside("gpu.worker.js", "gpu-all.wasm", "gpu-all"), most: 142 * KIB },
  { what: "CPU engine with SIMD", bytes: engine(...CPU), most: 90 * KIB },
  { what: "gradients and the rest on the CPU, beside it", bytes: beside("cpu.worker.js", "cpu-all.wasm", "cpu-all"), most: 124 * KIB },
  { what: "CPU engine without SIMD", bytes: engine("cpu.worker.js", "cpu-scalar.wasm", "cpu-all"), most: 149.5 * KIB },
  { what: "an index with SIMD, beside an engine", bytes: beside("plaid.worker.js", "plaid-simd.wasm", "plaid"), most: 140.5 * KIB },
  { what: "an index that the GPU searches, beside an engine", bytes: beside("plaid.worker.js", "plaid-gpu.wasm", "plaid-gpu"), most: 165 * KIB },
  { what: "building and changing it, beside it", bytes: beside("plaid.worker.js", "plaid-all.wasm", "plaid-all"), most: 200 * KIB },
  { what: "the same where the GPU searches it", bytes: beside("plaid.worker.js", "plaid-gpu-all.wasm", "plaid-gpu-all"), most: 272 * KIB },
  { what: "an index without SIMD, beside an engine", bytes: beside("plaid.worker.js", "plaid-scalar.wasm", "plaid-scalar"), most: 210 * KIB },
  { what: "encoder without its model", bytes: sum(["encoder.wasm", ...script("encoder.worker.js")]), most: 52 * KIB },
  { what: "page's part alone", bytes: sum(script("index.js")), most: 15 * KIB },
];
const checks = [];
const { small } = JSON.parse(readFileSync(new URL("../wasm/built.json", import.meta.url), "utf8"));
for (const { what, bytes, aim, most } of rows) {
  const aimed = aim === undefined ? "" : `, aim ${aim}`;
  checks.push([small ? bytes <= most : undefined, `${what}: ${(bytes / KIB).toFixed(1)} KiB gzip, at most ${most / KIB}${aimed}`]);
}
if (!small) console.log("sizes are told, not held: the standard library was used as it comes (scripts/build-wasm.mjs)");

const modules = readdirSync(dist).filter((file) => file.endsWith(".wasm"));
checks.push([modules.length === 11, `${modules.length} modules`]);
const text = (file) => readFileSync(dist + file).toString("latin1");
// Shader compilers have no business in a page: browsers bring their own.
for (const name of ["naga", "wgpu_core", "wgpu-core", "wgpu_hal"]) {
  checks.push([!["gpu.wasm", "gpu-all.wasm", "plaid-gpu.wasm", "plaid-gpu-all.wasm"].some((file) => text(file).includes(name)), `modules for GPUs without ${name}`]);
}
// Nor has whoever built it.
for (const file of modules) {
  const told = [...FOLDERS.map(([folder]) => folder), "/.cargo/", "/.rustup/"].filter((path) => text(file).includes(path));
  checks.push([told.length === 0, `${file} without paths of this machine${told.map((path) => `: ${path}`)}`]);
}

for (const [ok, what] of checks) console.log(`${ok === undefined ? "    " : ok ? "ok  " : "FAIL"} ${what}`);
const failed = checks.filter(([ok]) => ok === false).length;
console.log(`${checks.filter(([ok]) => ok).length} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
