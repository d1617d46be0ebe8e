// How fast one thread of @maxsim/web's CPU modules is, in Node and in Chromium: `node web/bench/run.mjs [--record FILE]`.
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { missing } from "../../spec/browser/chromium.mjs";
import { inChromium, inNode } from "./places.mjs";

const LEVELS = ["simd128", "generic"];

async function work({ root, level, clock }) {
  const [{ measure }, api] = [await import(`${root}web/bench/measure.js`), await import(`${root}web/dist/index.js`)];
  const engine = await api.createEngine({ backend: "cpu", cpuLevel: level, worker: false, silent: true });
  return measure(api, engine, { clock });
}

const record = { machine: { model: cpus()[0].model, node: process.version }, rows: [] };
for (const level of LEVELS) {
  for (const [where, run] of [["node", inNode], ["chromium", missing === undefined ? inChromium : undefined]]) {
    if (run === undefined) {
      console.log(missing);
      continue;
    }
    for (const row of await run(work, { level })) record.rows.push({ where, level, ...row });
  }
}
console.log(record.machine);
console.table(record.rows.map(({ ms, gflops, ...row }) => ({ ...row, ms: +ms.toFixed(2), "GFLOP/s": +gflops.toFixed(1) })));
const at = process.argv.indexOf("--record");
if (at > 0) writeFileSync(process.argv[at + 1], `${JSON.stringify(record, undefined, 1)}\n`);
