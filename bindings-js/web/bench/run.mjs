// How fast one thread of @maxsim/web's CPU modules is, in Node and in Chromium: `node web/bench/run.mjs [--record FILE]`.
//
// Times are the thread's processor time, for other programs may be using the machine.
import { readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { launch, missing } from "../../spec/browser/chromium.mjs";
import { serve } from "../../spec/browser/server.mjs";
import { measure } from "./measure.js";

const LEVELS = ["simd128", "generic"];

async function inNode(level) {
  const api = await import("../dist/index.js");
  const engine = await api.createEngine({ backend: "cpu", cpuLevel: level, silent: true });
  return measure(api, engine, { clock: () => process.cpuUsage().user / 1000 });
}

async function inChromium(level) {
  const [server, browser] = [await serve(), await launch()];
  try {
    const page = await browser.open(`${server.origin}/spec/browser/page.html`);
    const session = await browser.context.newCDPSession(page);
    await session.send("Performance.enable", { timeDomain: "threadTicks" });
    // Seconds the page's thread has run.
    await page.exposeFunction("threadTime", async () => {
      const { metrics } = await session.send("Performance.getMetrics");
      return metrics.find(({ name }) => name === "ThreadTime").value * 1000;
    });
    return await page.evaluate(async (level) => {
      const { measure } = await import("/web/bench/measure.js");
      const api = await import("/web/dist/index.js");
      const engine = await api.createEngine({ backend: "cpu", cpuLevel: level, worker: false, silent: true });
      return measure(api, engine, { clock: () => threadTime() });
    }, level);
  } finally {
    await browser.close();
    server.close();
  }
}

// Node fetches no files.
globalThis.fetch = async (url) => new Response(readFileSync(new URL(url)), { headers: { "content-type": "application/wasm" } });

const record = { machine: { model: cpus()[0].model, node: process.version }, rows: [] };
for (const level of LEVELS) {
  for (const [where, rates] of [["node", inNode], ["chromium", missing === undefined ? inChromium : undefined]]) {
    if (rates === undefined) {
      console.log(missing);
      continue;
    }
    for (const row of await rates(level)) record.rows.push({ where, level, ...row });
  }
}
console.log(record.machine);
console.table(record.rows.map(({ ms, gflops, ...row }) => ({ ...row, ms: +ms.toFixed(2), "GFLOP/s": +gflops.toFixed(1) })));
const at = process.argv.indexOf("--record");
if (at > 0) writeFileSync(process.argv[at + 1], `${JSON.stringify(record, undefined, 1)}\n`);
