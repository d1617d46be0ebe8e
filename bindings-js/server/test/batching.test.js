// Batches: what shares one, what does not, and that nobody can tell from the results.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createEngine } from "@maxsim/node";
import { Batcher } from "../dist/engine/batcher.js";
import { Reranking } from "../dist/engine/reranking.js";
import { Scoring } from "../dist/engine/scoring.js";
import { staticEncoder } from "../dist/encoders/static.js";
import { binaryVectors } from "../dist/vectors/binary.js";
import { f16Vectors, safetensors, scoreBody } from "../testing/client.mjs";

const never = () => new AbortController().signal;

/** A stage whose batches end when told to; `ran` are the batches so far. */
function stage(options = {}) {
  const ran = [];
  const gates = [];
  const batcher = new Batcher({
    concurrency: 1, maxCost: 10, cost: (job) => job.cost ?? 1, key: (job) => job.key ?? "same",
    run: (jobs, signal) => {
      ran.push(jobs.map(({ name }) => name).join(""));
      return new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(new Error("stopped")));
        gates.push({ resolve: () => resolve(jobs.map(({ name }) => name.toUpperCase())), reject, signal });
      });
    },
    ...options,
  });
  return { batcher, ran, gates };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

test("the first job runs at once, those that wait run together, results go where they belong", async () => {
  const { batcher, ran, gates } = stage();
  const results = Promise.all([..."abcd"].map((name) => batcher.submit({ name }, never())));
  assert.deepEqual([ran, batcher.length], [["a"], 3]);
  gates[0].resolve();
  await settle();
  assert.deepEqual([ran, batcher.length], [["a", "bcd"], 0]);
  gates[1].resolve();
  assert.deepEqual(await results, ["A", "B", "C", "D"]);
});

test("keys and costs bound batches; the first in line is always served", async () => {
  const { batcher, ran, gates } = stage();
  const jobs = [{ name: "a" }, { name: "b", cost: 6 }, { name: "x", key: "other" }, { name: "c", cost: 6 }, { name: "d", cost: 4 }, { name: "y", key: "other" }, { name: "L", cost: 99 }];
  const all = Promise.all(jobs.map((job) => batcher.submit(job, never())));
  for (let i = 0; i < 5; i++) {
    gates[i].resolve();
    await settle();
  }
  assert.deepEqual(ran, ["a", "bd", "xy", "c", "L"]);
  await all;
});

test("as many batches run at a time as are allowed, and jobs without a key alone", async () => {
  const { batcher, ran, gates } = stage({ concurrency: 2, key: () => undefined });
  const all = Promise.all([..."abc"].map((name) => batcher.submit({ name }, never())));
  assert.deepEqual(ran, ["a", "b"]);
  gates[1].resolve();
  await settle();
  assert.deepEqual(ran, ["a", "b", "c"]);
  gates[0].resolve();
  gates[2].resolve();
  await all;
});

test("a job that leaves while it waits never runs; a batch stops when all of its jobs have left", async () => {
  const { batcher, ran, gates } = stage();
  const controllers = [..."abcd"].map(() => new AbortController());
  const outcomes = Promise.allSettled([..."abcd"].map((name, i) => batcher.submit({ name }, controllers[i].signal)));
  controllers[2].abort(new Error("c left"));
  gates[0].resolve();
  await settle();
  assert.deepEqual(ran, ["a", "bd"]);
  controllers[1].abort(new Error("b left"));
  await settle();
  assert.equal(gates[1].signal.aborted, false, "d still wants it");
  controllers[3].abort(new Error("d left"));
  assert.equal(gates[1].signal.aborted, true);
  assert.deepEqual((await outcomes).map(({ value, reason }) => value ?? reason.message), ["A", "b left", "c left", "d left"]);
  await settle();
  const aborted = new AbortController();
  aborted.abort(new Error("gone before"));
  await assert.rejects(batcher.submit({ name: "e" }, aborted.signal), /gone before/);
  assert.equal(ran.length, 2);
});

test("one bad job fails alone", async () => {
  const { batcher } = stage({
    run: async (jobs) => jobs.map(({ name }) => {
      if (name === "c") throw new Error("bad");
      return name.toUpperCase();
    }),
  });
  const outcomes = await Promise.allSettled([..."abcd"].map((name) => batcher.submit({ name }, never())));
  assert.deepEqual(outcomes.map(({ value, reason }) => value ?? reason.message), ["A", "B", "bad", "D"]);
});

/** Metrics that remember the sizes of batches. */
function watched() {
  const sizes = { texts: [], score: [] };
  return { sizes, metrics: { batch: (name) => (jobs) => sizes[name].push(jobs), queue() {} } };
}

test("scores of a batch are the bits of each request alone; a bad request spoils it for nobody", async () => {
  const engine = await createEngine({ silent: true });
  const { sizes, metrics } = watched();
  const scoring = new Scoring(engine, 1, metrics);
  const bodies = Array.from({ length: 32 }, (_, i) => scoreBody({ n: i % 5, lq: 1 + (i % 3), ld: i % 6, dim: 16, seed: i }));
  const nan = safetensors({ query: ["F16", [1, 16], f16Vectors(16)], documents: ["F16", [1, 1, 16], f16Vectors(16).fill(0x7e00)] });
  const job = (body) => ({ ...binaryVectors(body), normalize: false, precision: "default" });
  const alone = [];
  for (const body of bodies) alone.push(await scoring.score(job(body), never()));
  sizes.score.length = 0;
  assert.deepEqual(await Promise.all(bodies.map((body) => scoring.score(job(body), never()))), alone);
  assert.deepEqual(sizes.score, [1, 31]);

  const outcomes = await Promise.allSettled([...bodies, nan].map((body) => scoring.score(job(body), never())));
  const bad = outcomes.pop();
  assert.deepEqual(outcomes.map(({ value }) => value), alone);
  assert.deepEqual([bad.reason.code, bad.reason.details.position], ["ERR_NON_FINITE", 0]);
  await engine.dispose();
});

test("texts of a batch are scored as each request alone", async () => {
  const engine = await createEngine({ silent: true });
  const { sizes, metrics } = watched();
  const reranking = new Reranking(await staticEncoder(1), engine, metrics);
  const texts = ["a recipe for bread", "the submarine dived", "taxes are due", "", "snow and ice"];
  const jobs = Array.from({ length: 20 }, (_, i) => ({
    query: ["ships under water", "bread", "", "?"][i % 4],
    documents: Array.from({ length: 1 + (i % 7) }, (_, k) => texts[(i + k) % texts.length]),
    maxTokens: 1 + (i % 5),
  }));
  const scores = async (job) => (await reranking.rerank(job, never())).scores;
  const alone = [];
  for (const job of jobs) alone.push(await scores(job));
  sizes.texts.length = 0;
  assert.deepEqual(await Promise.all(jobs.map(scores)), alone);
  assert.ok(Math.max(...sizes.texts) >= 10, `batches of ${sizes.texts}`);

  // A request of many portions, and one text that is longer than a portion.
  const words = "the submarine dived below the sea and ships sailed over it ".repeat(40);
  const documents = Array.from({ length: 200 }, (_, i) => (i === 7 ? words.repeat(50) : words.slice(i)));
  const long = await scores({ query: "ships under water", documents, maxTokens: 4096 });
  for (const i of [0, 6, 7, 8, 120, 199]) {
    assert.deepEqual(await scores({ query: "ships under water", documents: [documents[i]], maxTokens: 4096 }), long.slice(i, i + 1));
  }
  await engine.dispose();
});
