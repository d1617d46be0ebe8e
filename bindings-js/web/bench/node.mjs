// The rate of @maxsim/web's CPU modules in Node: `node web/bench/node.mjs [simd128|generic]`.
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { measure } from "./measure.js";

// Node fetches no files.
globalThis.fetch = async (url) => new Response(readFileSync(new URL(url)), { headers: { "content-type": "application/wasm" } });

const api = await import("../dist/index.js");
const engine = await api.createEngine({ backend: "cpu", cpuLevel: process.argv[2] ?? "simd128", silent: true });
// Time of the processor, for others may be using it.
const rows = await measure(api, engine, { clock: () => process.cpuUsage().user / 1000 });
console.log(`Node ${process.version}, ${cpus()[0].model}, ${engine.info.level}`);
console.table(rows.map(({ ms, gflops, ...row }) => ({ ...row, ms: +ms.toFixed(2), "GFLOP/s": +gflops.toFixed(1) })));
