// Every operator against the reference.
import { best, close, cross, equal, ok, scores, sequences, vectors } from "./support.js";

const DIM = 7;
const Q = { data: vectors(1, 2 * 3 * DIM), shape: [2, 3, DIM] };
const D = { data: vectors(2, 4 * 5 * DIM), shape: [4, 5, DIM] };
const reference = (input, extra) => sequences({ values: input.data, dim: DIM, ...input, ...extra });
const PACKED_Q = { data: vectors(3, 6 * DIM), dim: DIM, offsets: new Uint32Array([0, 2, 2, 6]) };
const PACKED_D = { data: vectors(4, 11 * DIM), dim: DIM, offsets: new Int32Array([0, 4, 5, 5, 11]) };

export const operators = [
  {
    name: "maxsim scores every query with every document",
    async run({ engine }) {
      const expected = scores(cross(reference(Q), reference(D)));
      const result = await engine.maxsim(Q, D, { argmax: true });
      equal(result.shape, [2, 4], "shape");
      close(result.scores, expected.scores);
      equal(result.argmaxShape, [2, 4, 3], "argmaxShape");
      equal(result.argmax, Int32Array.from(expected.argmax), "argmax");
      ok(result.scores instanceof Float32Array && result.argmax instanceof Int32Array, "types of results");
      const without = await engine.maxsim(Q, D);
      equal(without.argmax, undefined, "argmax");
      equal(without.scores, result.scores, "scores without argmax");
    },
  },
  {
    name: "normalize divides tokens by their length",
    async run({ engine }) {
      const expected = scores(cross(reference(Q), reference(D)), true);
      close((await engine.maxsim(Q, D, { normalize: true })).scores, expected.scores);
    },
  },
  {
    name: "operands with two axes have none in the result",
    async run({ engine }) {
      const q = { data: Q.data.subarray(0, 3 * DIM), dim: DIM };
      const d = { data: D.data.subarray(0, 5 * DIM), shape: [5, DIM] };
      const all = await engine.maxsim(Q, D);
      const one = await engine.maxsim(q, d, { argmax: true });
      equal([one.shape, one.argmaxShape], [[], [3]], "shapes");
      equal(one.scores, all.scores.slice(0, 1));
      equal((await engine.maxsim(q, D)).shape, [4], "shape");
      equal((await engine.maxsim(Q, d)).shape, [2], "shape");
    },
  },
  {
    name: "candidates belong to their query",
    async run({ engine }) {
      const candidates = { data: D.data, shape: [2, 2, 5, DIM] };
      const [q, d] = [reference(Q), reference(candidates)];
      const pairs = [[q[0], d[0]], [q[0], d[1]], [q[1], d[2]], [q[1], d[3]]];
      const result = await engine.maxsim(Q, candidates);
      equal(result.shape, [2, 2], "shape");
      close(result.scores, scores(pairs).scores);
    },
  },
  {
    name: "maxsimPairs scores query i with document i",
    async run({ engine }) {
      const d = { data: D.data.slice(0, 2 * 5 * DIM), shape: [2, 5, DIM] };
      const [qs, ds] = [reference(Q), reference(d)];
      const result = await engine.maxsimPairs(Q, d, { argmax: true });
      const expected = scores([[qs[0], ds[0]], [qs[1], ds[1]]]);
      equal([result.shape, result.argmaxShape], [[2], [2, 3]], "shapes");
      close(result.scores, expected.scores);
      equal([...result.argmax], expected.argmax, "argmax");
    },
  },
  {
    name: "maxsimVarlen takes packed operands, empty sequences among them",
    async run({ engine }) {
      const expected = scores(cross(reference(PACKED_Q), reference(PACKED_D)));
      const result = await engine.maxsimVarlen(PACKED_Q, PACKED_D, { argmax: true });
      equal(result.shape, [3, 4], "shape");
      close(result.scores, expected.scores);
      equal([...result.argmax], expected.argmax, "argmax");
      equal(result.argmaxShape, undefined, "argmaxShape");
      equal([...result.argmaxOffsets], [0, 2, 4, 6, 8, 8, 8, 8, 8, 12, 16, 20, 24], "argmaxOffsets");
    },
  },
  {
    name: "scorePairs keeps the order and duplicates of its pairs",
    async run({ engine }) {
      const [qs, ds] = [reference(PACKED_Q), reference(PACKED_D)];
      const [qi, di] = [[2, 0, 2, 1], [3, 0, 3, 2]];
      const expected = scores(qi.map((q, p) => [qs[q], ds[di[p]]])).scores;
      for (const [a, b] of [
        [qi, di],
        [Uint32Array.from(qi), Int32Array.from(di)],
        [BigInt64Array.from(qi, BigInt), Uint8Array.from(di)],
      ]) {
        const result = await engine.scorePairs(PACKED_Q, PACKED_D, a, b);
        equal(result.shape, [4], "shape");
        close(result.scores, expected);
      }
    },
  },
  {
    name: "maxsimPadded and packPadded agree",
    async run({ engine }) {
      const q = { ...Q, lengths: [3, 1] };
      const d = { data: D.data, shape: [2, 2, 5, DIM], lengths: new Uint8Array([5, 0, 2, 4]) };
      const [qs, ds] = [reference(q), reference(d)];
      const expected = scores([[qs[0], ds[0]], [qs[0], ds[1]], [qs[1], ds[2]], [qs[1], ds[3]]]).scores;
      const padded = await engine.maxsimPadded(q, d);
      equal(padded.shape, [2, 2], "shape");
      close(padded.scores, expected);
      equal(padded.scores[1], 0, "score of an empty document");

      const packed = await engine.packPadded(q, d);
      equal([...packed.q.offsets], [0, 3, 4], "q.offsets");
      equal([...packed.d.offsets], [0, 5, 5, 7, 11], "d.offsets");
      equal([[...packed.pairQIdx], [...packed.pairDIdx]], [[0, 0, 1, 1], [0, 1, 2, 3]], "pairs");
      equal([packed.q.dim, packed.q.dtype, packed.q.data.length], [DIM, "f32", 4 * DIM], "q");
      const again = await engine.scorePairs(packed.q, packed.d, packed.pairQIdx, packed.pairDIdx);
      equal(again.scores, padded.scores, "scores of packed pairs");
    },
  },
  {
    name: "retrieve ranks, normalises by default, and explains",
    async run({ engine }) {
      const all = scores(cross(reference(Q), reference(D)), true);
      const rows = [all.scores.slice(0, 4), all.scores.slice(4)];
      const winners = (i, j) => all.argmax.slice((i * 4 + j) * 3, (i * 4 + j + 1) * 3);
      for (const options of [{}, { chunk: 1 }, { chunk: 3 }, { largest: false }]) {
        const result = await engine.retrieve(Q, D, { topK: 3, explain: true, ...options });
        const order = rows.map((row) => best(row, 3, options.largest));
        equal(result.shape, [2, 3], "shape");
        ok(result.indices instanceof Uint32Array, "type of indices");
        equal([...result.indices], order.flat(), "indices");
        close(result.scores, order.flatMap((js, i) => js.map((j) => rows[i][j])));
        equal(result.argmaxShape, [2, 3, 3], "argmaxShape");
        equal([...result.argmax], order.flatMap((js, i) => js.flatMap((j) => winners(i, j))), "argmax");
      }
      const set = await engine.retrieve(Q, D, { topK: 2, sorted: false });
      equal([...set.indices.slice(0, 2)].sort(), best(rows[0], 2).sort(), "unsorted set");
      const plain = await engine.retrieve(Q, D, { topK: 9, normalize: false });
      equal(plain.shape, [2, 4], "width is at most the number of documents");
      close([plain.scores[0]], [Math.max(...scores(cross(reference(Q), reference(D))).scores.slice(0, 4))]);
    },
  },
  {
    name: "equal scores rank by index",
    async run({ engine }) {
      const d = { data: new Float32Array(6).fill(1), shape: [6, 1, 1] };
      const { indices } = await engine.retrieve({ data: new Float32Array([1]), dim: 1 }, d, { topK: 4 });
      equal([...indices], [0, 1, 2, 3], "indices");
    },
  },
  {
    name: "explain says how an operator would be run",
    async run({ engine }) {
      for (const plan of [
        await engine.explain({ op: "maxsim", q: Q, d: D, normalize: true }),
        await engine.explain({ op: "retrieve", q: Q, d: D, topK: 2 }),
        await engine.explain({ op: "scorePairs", q: PACKED_Q, d: PACKED_D, pairQIdx: [0], pairDIdx: [1] }),
      ]) {
        equal(plan.backend, engine.info.backend, "backend");
        ok(plan.kernel.length > 0 && plan.text.includes(plan.kernel), "kernel");
        ok(Object.keys(plan.choices).length > 0 && Array.isArray(plan.notes), "choices and notes");
      }
    },
  },
  {
    name: "info tells what computes",
    async run({ engine }) {
      const { backend, device, level, levels, threads, version } = engine.info;
      ok(["cpu", "wgpu", "cuda"].includes(backend), "backend");
      ok(device.length > 0 && level.length > 0 && Array.isArray(levels), "device and levels");
      ok(Number.isInteger(threads) && /^\d+\.\d+\.\d+/.test(version), "threads and version");
    },
  },
  {
    name: "scorers score with their options",
    async run({ engine }) {
      const scorer = engine.scorer();
      equal(scorer.options.normalize, true, "normalize");
      const [qs, ds] = [reference(Q), reference(D)];
      const expected = scores(cross(qs, ds), true).scores;
      close((await scorer.forward(Q, D)).scores, expected);
      close((await engine.scorer({ normalize: false }).forward(Q, D)).scores, scores(cross(qs, ds)).scores);

      const one = { data: Q.data.slice(0, 3 * DIM), shape: [1, 3, DIM] };
      const row = await scorer.score(one, D, { argmax: true });
      equal([row.shape, row.argmaxShape], [[4], [4, 3]], "shapes");
      close(row.scores, expected.slice(0, 4));
      equal((await scorer.retrieve(Q, D, { topK: 2 })).indices, (await engine.retrieve(Q, D, { topK: 2 })).indices);
    },
  },
  {
    name: "scorers leave pad tokens out, whatever the width of ids",
    async run({ engine }) {
      const [qIds, dIds] = [[5, 9, 0, 7, 0, 0], [1, 2, 0, 3, 4, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, -3, 2, 2, 0, 0]];
      const keep = (ids) => ids.map((id) => id !== 0);
      const expected = scores(cross(reference(Q, { mask: keep(qIds) }), reference(D, { mask: keep(dIds) })), true).scores;
      for (const pad of [0, 0n]) {
        const scorer = engine.scorer({ maskPadToken: pad });
        close((await scorer.forwardWithIds(Q, qIds, D, dIds)).scores, expected);
        const wide = await scorer.forwardWithIds(Q, BigInt64Array.from(qIds, BigInt), D, Int32Array.from(dIds));
        close(wide.scores, expected);
      }
    },
  },
];
