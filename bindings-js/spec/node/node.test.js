// What only Node has: its event loop, its garbage collector, its ways to load an addon.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";
import * as api from "@maxsim/node";
import { loadNative, platformName } from "../../node/dist/load.js";
import { equal, rejects, vectors } from "../cases/support.js";

// What is chosen without being asked for is the CPU, whatever GPU this machine has.
process.env.MAXSIM_DISABLE_GPU ??= "1";
setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc");
const MIB = 1 << 20;

/** Token vectors of so many MiB, cheaply. */
function large(mib, dim = 128) {
  const data = new Float32Array((mib * MIB) / 4);
  const pattern = vectors(51, 4096 + 7);
  for (let at = 0; at < data.length; at += pattern.length) data.set(pattern.subarray(0, data.length - at), at);
  return { data, shape: [data.length / dim / 64, 64, dim] };
}

let engine;
before(async () => {
  engine = await api.createEngine({ backend: "cpu", silent: true });
});
after(() => engine.dispose());

test("the event loop turns while a large search runs", async () => {
  const docs = await engine.corpus({ ...large(96), normalize: false });
  const query = { data: vectors(52, 32 * 64 * 128), shape: [32, 64, 128] };
  let [ticks, longest, last] = [0, 0, performance.now()];
  const timer = setInterval(() => {
    const now = performance.now();
    [ticks, longest, last] = [ticks + 1, Math.max(longest, now - last), now];
  }, 10);
  const start = performance.now();
  await docs.search(query, { topK: 10 });
  const took = performance.now() - start;
  clearInterval(timer);
  await docs.dispose();
  assert.ok(took > 100, `the search took ${took} ms: too short to tell`);
  // Every core is busy, so the timer may be late, but it must not wait for the search.
  assert.ok(ticks >= took / 10 / 4, `${ticks} ticks of 10 ms in ${took} ms`);
  assert.ok(longest < took / 2, `longest pause ${longest} ms of ${took} ms`);
});

test("large inputs are not copied", async () => {
  const d = large(256);
  const q = { data: vectors(53, 128), dim: 128 };
  await engine.maxsim(q, { data: vectors(54, 128), dim: 128 });
  // Whether a thread gets its turn in time is for the machine to say; a call that copies is late every time.
  let blocked, more;
  for (let attempt = 0; attempt < 5; attempt++) {
    const before = process.memoryUsage();
    const start = performance.now();
    const call = engine.maxsim(q, d);
    blocked = performance.now() - start;
    let peak = 0;
    const timer = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 2);
    await call;
    clearInterval(timer);
    more ??= peak - before.rss;
    if (blocked < 20) break;
  }
  assert.ok(blocked < 20, `the call blocked for ${blocked} ms`);
  assert.ok(more < 64 * MIB, `${more / MIB} MiB more`);
});

test("small inputs are copied, so they may change at once", async () => {
  const q = { data: vectors(55, 3 * 16), dim: 16 };
  const d = { data: vectors(56, 8 * 5 * 16), shape: [8, 5, 16], mask: new Uint8Array(40).fill(1) };
  const expected = (await engine.maxsim(q, d)).scores;
  const call = engine.maxsim(q, d);
  q.data.fill(9);
  d.data.fill(9);
  d.mask.fill(0);
  equal((await call).scores, expected, "scores");
});

test("inputs live until the call settles, even if nobody else holds them", async () => {
  const q = { data: vectors(57, 4 * 128), dim: 128 };
  const expected = (await engine.maxsim(q, large(16))).scores;
  const calls = Array.from({ length: 6 }, () => engine.maxsim(q, large(16)));
  gc();
  await sleep(0);
  gc();
  for (const { scores } of await Promise.all(calls)) equal(scores, expected, "scores");
});

test("a buffer transferred meanwhile is an error, not a result", async () => {
  const d = large(64);
  const call = engine.maxsim({ data: vectors(58, 32 * 128), dim: 128 }, d);
  // The memory lives on in the clone.
  const clone = structuredClone(d.data, { transfer: [d.data.buffer] });
  await rejects(api, call, "ERR_VALUE", "d.data");
  assert.equal(clone.length, (64 * MIB) / 4);
});

test("a resizable buffer is copied, for its pages may go", async () => {
  const d = large(1);
  const buffer = new ArrayBuffer(MIB, { maxByteLength: 2 * MIB });
  const data = new Float32Array(buffer);
  data.set(d.data);
  const q = { data: vectors(59, 4 * 128), dim: 128 };
  const expected = (await engine.maxsim(q, d)).scores;
  const call = engine.maxsim(q, { ...d, data });
  buffer.resize(0);
  equal((await call).scores, expected, "scores");
});

test("results belong to the caller", async () => {
  const q = { data: vectors(60, 4 * 128), dim: 128 };
  const results = [];
  for (let i = 0; i < 50; i++) results.push((await engine.maxsim(q, large(1))).scores);
  gc();
  for (const scores of results) equal(scores, results[0], "scores");
  assert.equal(structuredClone(results[0], { transfer: [results[0].buffer] }).length, results[1].length);
});

test("forgotten corpora are freed in time, although most of their memory is not JavaScript's", async () => {
  const input = { ...large(32), normalize: false };
  const before = process.memoryUsage().rss;
  let peak = 0;
  for (let i = 0; i < 40; i++) {
    await engine.corpus(input);
    peak = Math.max(peak, process.memoryUsage().rss - before);
  }
  // Without a word about their weight, nothing would ask for a collection before all 1,280 MiB are there.
  assert.ok(peak < 640 * MIB, `${peak / MIB} MiB at once`);
});

test("dispose frees at once", async () => {
  const docs = await engine.corpus({ ...large(128), normalize: false });
  const before = process.memoryUsage().rss;
  await docs.dispose();
  const freed = before - process.memoryUsage().rss;
  assert.ok(freed > 100 * MIB, `${freed / MIB} MiB freed of 128`);
});

test("a result that no array can hold is refused before anything is allocated", async () => {
  const q = { data: vectors(61, 1), dim: 1 };
  const d = { data: new Float32Array(0), shape: [2 ** 30 + 1, 0, 1] };
  const before = process.memoryUsage().rss;
  await rejects(api, engine.maxsim(q, d), "ERR_LIMIT", "scores");
  assert.ok(process.memoryUsage().rss - before < 64 * MIB, "allocated");
});

test("one-time warnings are Node warnings, once, unless silent", async () => {
  const warnings = [];
  const listen = (warning) => warnings.push(warning);
  process.on("warning", listen);
  const q = { data: new Float32Array([100, 0]), dim: 2 };
  for (const options of [{ silent: true }, {}]) {
    const talkative = await api.createEngine({ backend: "cpu", ...options });
    await talkative.maxsim(q, q);
    await talkative.maxsim(q, q);
    await talkative.dispose();
  }
  await sleep(5);
  process.off("warning", listen);
  assert.deepEqual(warnings.map(({ name }) => name), ["MaxSimWarning"]);
  assert.match(warnings[0].message, /norm 100/);
});

test("threads, levels and backends are chosen, or refused with the reason", async () => {
  for (const cpuLevel of engine.info.levels) {
    const chosen = await api.createEngine({ cpuLevel, threads: 1 });
    assert.deepEqual([chosen.info.level, chosen.info.threads, chosen.info.backend], [cpuLevel, 1, "cpu"]);
    await chosen.dispose();
  }
  const missing = ["neon", "avx2"].find((level) => !engine.info.levels.includes(level));
  const error = await rejects(api, api.createEngine({ cpuLevel: missing }), "ERR_UNSUPPORTED");
  assert.match(error.details.hint, /this machine runs/);
  assert.equal((await api.createEngine({ backend: "auto" })).info.backend, "cpu");
});

test("every worker thread has an engine of its own", async () => {
  const code = `
    import { parentPort } from "node:worker_threads";
    const { createEngine } = await import(${JSON.stringify(import.meta.resolve("@maxsim/node"))});
    const engine = await createEngine({ threads: 1 });
    const q = { data: new Float32Array([0.6, 0.8]), dim: 2 };
    parentPort.postMessage((await engine.maxsim(q, q)).scores);
  `;
  const url = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
  const answers = await Promise.all(
    [1, 2, 3].map(() => new Promise((resolve, reject) => new Worker(url).once("message", resolve).once("error", reject))),
  );
  for (const scores of answers) assert.ok(Math.abs(scores[0] - 1) < 1e-6);
});

test("an index is found by its path, by a file: URL, and in one file", async () => {
  const directory = await mkdtemp(join(tmpdir(), "maxsim-index-"));
  const path = join(directory, "an index");
  const documents = { data: vectors(9, 20 * 4 * 8), shape: [20, 4, 8] };
  const built = await engine.buildIndex({ path, documents: () => [{ documents }] });
  const file = join(directory, "packed.mxi");
  await writeFile(file, await built.pack());
  await built.dispose();
  for (const source of [path, pathToFileURL(path), file, pathToFileURL(file), await readFile(file)]) {
    const index = await engine.openIndex(source);
    const [[hit]] = await index.search(documents.data.slice(5 * 32, 6 * 32), { topK: 1 });
    assert.equal(hit.id, 5n);
    await index.dispose();
  }
  await rejects(api, engine.openIndex(new URL("https://localhost/index")), "ERR_VALUE", "source");
  await rejects(api, engine.openIndex(new Blob([])), "ERR_VALUE", "source");
  await rejects(api, engine.buildIndex({ path: { kind: "directory", name: "x" }, documents: () => [] }), "ERR_VALUE", "path");
  await rm(directory, { recursive: true });
});

test("a platform without a binary, or with one that does not load, says so", async () => {
  assert.match(platformName(), new RegExp(`^${process.platform}-${process.arch}`));
  assert.equal(platformName("win32", "arm64"), "win32-arm64-msvc");
  assert.equal(platformName("darwin", "arm64"), "darwin-arm64");
  assert.equal(platformName("freebsd", "x64"), "freebsd-x64");
  const load = async (...args) => loadNative(...args);
  const missing = await rejects(api, load(undefined, "freebsd-x64"), "ERR_UNSUPPORTED");
  assert.match(missing.message, /no maxsim\.freebsd-x64\.node/);
  assert.equal(missing.details.platform, "freebsd-x64");
  const { mkdtempSync, writeFileSync, rmSync } = await import("node:fs");
  const { tmpdir } = await import("node:os");
  const directory = mkdtempSync(`${tmpdir()}/maxsim-`);
  try {
    writeFileSync(`${directory}/maxsim.${platformName()}.node`, "not a library");
    const broken = await rejects(api, load(directory), "ERR_UNSUPPORTED");
    assert.match(broken.message, /does not load/);
    assert.ok(broken.cause instanceof Error);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("the package exports the surface and nothing else", () => {
  assert.deepEqual(Object.keys(api).sort(), [
    "MaxSimError", "createEngine", "createStaticEncoder", "decodeResidual", "dequantize", "quantizeFp8", "quantizeInt8",
  ]);
});
