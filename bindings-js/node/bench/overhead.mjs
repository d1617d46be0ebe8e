// What a call from Node costs over the same call from Rust: one query of 8 tokens, one document of 16, d = 32.
// Prints µs per call; fails above 60 µs of overhead. Run `npm run build` first; `bench/overhead.rs` is the other side.
import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createEngine } from "@maxsim/node";

const LIMIT_US = 60;
const CALLS = 5_000;

const engine = await createEngine({ threads: 1, silent: true });
const q = { data: Float32Array.from({ length: 8 * 32 }, (_, x) => Math.sin(x) / 4), shape: [8, 32] };
const d = { data: Float32Array.from({ length: 16 * 32 }, (_, x) => Math.cos(x) / 4), shape: [16, 32] };
const docs = await engine.corpus({ ...d, normalize: false });

/** Median of single calls, one after the other: what a request waits. */
async function latency(call) {
  for (let i = 0; i < CALLS; i++) await call();
  const times = new Float64Array(CALLS);
  for (let i = 0; i < CALLS; i++) {
    const start = performance.now();
    await call();
    times[i] = performance.now() - start;
  }
  return times.sort()[CALLS >> 1] * 1e3;
}

/** Mean over calls of which 16 are under way at a time. */
async function throughput(call) {
  const start = performance.now();
  for (let i = 0; i < CALLS; i += 16) await Promise.all(Array.from({ length: 16 }, call));
  return ((performance.now() - start) * 1e3) / CALLS;
}

const rust = Number(
  execFileSync("cargo", ["run", "--quiet", "--release", "--package", "maxsim-node", "--example", "overhead"], {
    cwd: join(dirname(fileURLToPath(import.meta.url)), ".."),
    encoding: "utf8",
  }),
);
const node = await latency(() => engine.maxsim(q, d));
const rows = {
  "Rust, maxsim": rust,
  "Node, maxsim": node,
  "Node, maxsim, 16 at a time": await throughput(() => engine.maxsim(q, d)),
  "Node, corpus.search": await latency(() => docs.search(q.data, { topK: 1 })),
  "overhead of maxsim": node - rust,
};
for (const [name, us] of Object.entries(rows)) console.log(`${name.padEnd(28)}${us.toFixed(1).padStart(8)} µs`);
await engine.dispose();
if (node - rust > LIMIT_US) {
  console.error(`overhead above ${LIMIT_US} µs`);
  process.exitCode = 1;
}
