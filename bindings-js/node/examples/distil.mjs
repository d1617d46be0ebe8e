// Distils 128-dimensional MaxSim scores into 32 dimensions: a teacher scores K candidates per query [Nq, K], a student
// projection learns to rank them alike by the Kullback–Leibler divergence of the two softmaxes. Candidates are the 4-D
// layout d [Nq, K, Ld, 32], gradients come by the method "lowmem". Prints the divergence and how often both agree on the best.
import { createEngine } from "@maxsim/node";
import {
  adam, isMain, pack, pad, project, projectBackward, projection, random, shuffle, softmax, unpad, wordPairs,
} from "./common.mjs";

const SIZE = 32;
const K = 8;
const BATCH = 16;
const TEMPERATURE = 0.2;

/** Queries with the meaning they have and K − 1 others: tokens of both, packed. */
function batch(pairs, all, dim, next) {
  const others = () => Array.from({ length: K - 1 }, () => all[Math.floor(next() * all.length)].d);
  return { q: pack(pairs.map(({ q }) => q), dim), d: pack(pairs.flatMap(({ d }) => [d, ...others()]), dim) };
}

/** Operands: queries packed, documents padded to `[Nq, K, Ld, dim]`. */
function operands(q, d, dim) {
  const lengths = Uint32Array.from({ length: d.offsets.length - 1 }, (_, i) => d.offsets[i + 1] - d.offsets[i]);
  const len = lengths.reduce((a, b) => Math.max(a, b), 0);
  return { q: { ...q, dim }, d: { data: pad(d.data, d, len, dim), shape: [lengths.length / K, K, len, dim], lengths } };
}

/** The same in the student's space. */
const projected = ({ q, d }, w, dim) =>
  operands({ ...q, data: project(q.data, w, dim) }, { ...d, data: project(d.data, w, dim) }, SIZE);

/** Mean divergence of rows of K scores, its gradient with respect to the student's, and how many rows agree on the best. */
function divergence(teacher, student) {
  const n = teacher.length / K;
  const gradScores = new Float32Array(teacher.length);
  let [loss, agreement] = [0, 0];
  for (let at = 0; at < teacher.length; at += K) {
    const p = softmax(teacher.subarray(at, at + K), TEMPERATURE);
    const q = softmax(student.subarray(at, at + K), TEMPERATURE);
    p.forEach((x, j) => {
      loss += (x * Math.log(x / q[j])) / n;
      gradScores[at + j] = (q[j] - x) / TEMPERATURE / n;
    });
    agreement += p.indexOf(Math.max(...p)) === q.indexOf(Math.max(...q)) ? 1 / n : 0;
  }
  return { loss, agreement, gradScores };
}

/** Distils; returns held-out figures before and after. */
export async function distil({ seed = 11, steps = 150, rate = 1e-2, log = () => {} } = {}) {
  const engine = await createEngine({ silent: true });
  const next = random(seed);
  const { pairs, dim } = await wordPairs(2304, next);
  const [held, rest] = [pairs.slice(0, 256), pairs.slice(256)];
  const test = batch(held, held, dim, next);
  const w = projection(SIZE, dim, next);
  const update = adam(w, rate);

  const teach = async ({ q, d }) => (await engine.maxsim(q, d, { normalize: true })).scores;
  const evaluate = async () => {
    const { loss, agreement } = divergence(await teach(operands(test.q, test.d, dim)), await teach(projected(test, w, dim)));
    return { loss, agreement };
  };

  const before = await evaluate();
  log("before", before);
  for (let step = 0; step < steps; step++) {
    const at = (step * BATCH) % (rest.length - BATCH);
    if (at < BATCH) shuffle(rest, next);
    const inputs = batch(rest.slice(at, at + BATCH), rest, dim, next);
    const { q, d } = projected(inputs, w, dim);
    const { scores, argmax } = await engine.maxsim(q, d, { normalize: true, argmax: true });
    const { gradScores } = divergence(await teach(operands(inputs.q, inputs.d, dim)), scores);
    const operation = { op: "maxsim", q, d, normalize: true };
    const gradients = await engine.backward(operation, gradScores, { argmax, method: "lowmem" });
    const gradient = new Float32Array(w.length);
    projectBackward(gradients.q.data, inputs.q.data, gradient, dim);
    projectBackward(unpad(gradients.d.data, inputs.d, d.shape[2], SIZE), inputs.d.data, gradient, dim);
    update(gradient);
  }
  const after = await evaluate();
  log("after", after);
  await engine.dispose();
  return { before, after };
}

if (isMain(import.meta.url)) {
  const figures = (values) => Object.entries(values).map(([name, x]) => `${name} ${x.toFixed(4)}`).join("  ");
  const start = performance.now();
  await distil({ log: (what, values) => console.log(what.padEnd(8), figures(values)) });
  console.log(`${((performance.now() - start) / 1e3).toFixed(1)} s`);
}
