// Fits a projection 128 → 32 so that words find their meanings: contrastive loss with in-batch negatives, the softmax
// cross-entropy of MaxSim scores [B, B]. Documents go through `maxsimFromHidden`, which never writes their projection to
// memory; queries, which are short, are projected here. Prints the loss and how held-out words rank their meanings.
import { createEngine } from "@maxsim/node";
import { adam, isMain, pack, project, projectBackward, projection, random, shuffle, softmax, wordPairs } from "./common.mjs";

const SIZE = 32;
const BATCH = 64;
const TEMPERATURE = 0.2;

/** Scores [Nq, Nd] of `pairs` under `w`, and what went into them. */
function operands(pairs, w, dim) {
  const words = pack(pairs.map(({ q }) => q), dim);
  const q = { data: project(words.data, w, dim), dim: SIZE, offsets: words.offsets };
  const h = pack(pairs.map(({ d }) => d), dim);
  return { words, input: { q, h, w: { data: w, shape: [SIZE, dim] } } };
}

/** Cross-entropy of each row with its diagonal, and its gradient with respect to the scores. */
function contrastive(scores, n) {
  const gradScores = new Float32Array(n * n);
  let loss = 0;
  for (let i = 0; i < n; i++) {
    const p = softmax(scores.subarray(i * n, (i + 1) * n), TEMPERATURE);
    loss -= Math.log(p[i]) / n;
    p.forEach((x, j) => (gradScores[i * n + j] = (x - (i === j ? 1 : 0)) / TEMPERATURE / n));
  }
  return { loss, gradScores };
}

/** Loss, recall@1 and mean reciprocal rank of `pairs` under `w`. */
async function evaluate(engine, pairs, w, dim) {
  const n = pairs.length;
  const { scores } = await engine.maxsimFromHidden(operands(pairs, w, dim).input);
  let [first, reciprocal] = [0, 0];
  for (let i = 0; i < n; i++) {
    const row = scores.subarray(i * n, (i + 1) * n);
    const rank = 1 + row.reduce((better, x, j) => better + (x > row[i] || (x === row[i] && j < i) ? 1 : 0), 0);
    first += rank === 1 ? 1 : 0;
    reciprocal += 1 / rank;
  }
  return { loss: contrastive(scores, n).loss, recall: first / n, mrr: reciprocal / n };
}

/** Trains; returns held-out figures before and after. */
export async function train({ seed = 7, epochs = 4, rate = 5e-3, count = 6144, held = 512, log = () => {} } = {}) {
  const engine = await createEngine({ silent: true });
  const next = random(seed);
  const { pairs, dim } = await wordPairs(count + held, next);
  const [test, rest] = [pairs.slice(0, held), pairs.slice(held)];
  const w = projection(SIZE, dim, next);
  const update = adam(w, rate);

  const before = await evaluate(engine, test, w, dim);
  log("before", before);
  for (let epoch = 1; epoch <= epochs; epoch++) {
    shuffle(rest, next);
    let [loss, steps] = [0, 0];
    for (let at = 0; at + BATCH <= rest.length; at += BATCH) {
      const { words, input } = operands(rest.slice(at, at + BATCH), w, dim);
      const { scores, argmax } = await engine.maxsimFromHidden({ ...input, argmax: true });
      const step = contrastive(scores, BATCH);
      const gradients = await engine.maxsimFromHiddenBackward(input, step.gradScores, { argmax, wants: ["q", "w"] });
      // The projection is shared: its gradient comes from the documents and from the queries.
      projectBackward(gradients.q.data, words.data, gradients.w.data, dim);
      update(gradients.w.data);
      [loss, steps] = [loss + step.loss, steps + 1];
    }
    log(`epoch ${epoch}`, { loss: loss / steps });
  }
  const after = await evaluate(engine, test, w, dim);
  log("after", after);
  await engine.dispose();
  return { before, after };
}

if (isMain(import.meta.url)) {
  const figures = (values) => Object.entries(values).map(([name, x]) => `${name} ${x.toFixed(4)}`).join("  ");
  const start = performance.now();
  await train({ log: (what, values) => console.log(what.padEnd(8), figures(values)) });
  console.log(`${((performance.now() - start) / 1e3).toFixed(1)} s`);
}
