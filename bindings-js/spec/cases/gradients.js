// Gradients against finite differences of the reference.
import {
  close, closeAll, cross, decode, differences, equal, fromF16, ok, rejects, scores, sequences, toF16, unit, vectors,
} from "./support.js";

const DIM = 5;
const Q = { data: vectors(61, 2 * 3 * DIM), shape: [2, 3, DIM] };
const D = { data: vectors(62, 4 * 4 * DIM), shape: [4, 4, DIM] };
const GRID = { data: D.data, shape: [2, 2, 4, DIM] };
const PACKED_Q = { data: vectors(63, 6 * DIM), dim: DIM, offsets: [0, 2, 2, 6] };
const PACKED_D = { data: vectors(64, 11 * DIM), dim: DIM, offsets: [0, 4, 5, 5, 11] };
const MASKED_Q = { ...Q, mask: [true, true, false, true, false, true] };
const MASKED_D = { ...D, lengths: [4, 0, 3, 4], mask: Uint8Array.from({ length: 16 }, (_, i) => Number(i % 5 !== 1)) };
const PAIRS = { pairQIdx: [2, 0, 2, 2], pairDIdx: [3, 0, 3, 1] };
const grouped = (k) => (qs, ds) => ds.map((d, j) => [qs[Math.floor(j / k)], d]);
const listed = (qs, ds) => PAIRS.pairQIdx.map((i, p) => [qs[i], ds[PAIRS.pairDIdx[p]]]);

/** Operators, and which pairs they score. */
const FORMS = [
  [{ op: "maxsim", q: Q, d: D }, cross],
  [{ op: "maxsim", q: MASKED_Q, d: MASKED_D }, cross],
  [{ op: "maxsim", q: { data: Q.data.slice(0, 3 * DIM), dim: DIM }, d: D }, cross],
  [{ op: "maxsim", q: Q, d: GRID }, grouped(2)],
  [{ op: "maxsimPairs", q: { ...Q, lengths: [3, 1] }, d: { data: D.data.slice(0, 8 * DIM), shape: [2, 4, DIM] } }, grouped(1)],
  [{ op: "maxsimVarlen", q: PACKED_Q, d: PACKED_D }, cross],
  [{ op: "scorePairs", q: PACKED_Q, d: PACKED_D, ...PAIRS }, listed],
  [{ op: "maxsimPadded", q: { ...Q, lengths: [2, 3] }, d: { ...GRID, lengths: [4, 0, 1, 3] } }, grouped(2)],
];

const reference = (input, values = input.data) =>
  sequences({ ...input, ...(input.offsets ? {} : { shape: rows(input) }), values, dim: DIM });
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const rows = (input) => input.shape ?? [input.data.length / DIM, DIM];

/** The scores' gradient that a case uses, for so many scores. */
const seeds = (count) => vectors(65, count);

/** The forward call of an operation. */
function forward(engine, { op, q, d, pairQIdx, pairDIdx, ...options }, more) {
  const lists = op === "scorePairs" ? [pairQIdx, pairDIdx] : [];
  return engine[op](q, d, ...lists, { ...options, ...more });
}

// A fused head small enough for finite differences.
const [D_OUT, D_IN] = [3, 4];
const HEAD = {
  q: { data: vectors(71, 2 * 3 * D_OUT), shape: [2, 3, D_OUT], lengths: [3, 2] },
  h: { data: vectors(72, 3 * 4 * D_IN), shape: [3, 4, D_IN], lengths: [4, 0, 3] },
  w: { data: vectors(73, D_OUT * D_IN), shape: [D_OUT, D_IN] },
  b: vectors(74, D_OUT),
};

/** Scores of the head: documents are projected one by one, queries are taken as they are. */
function head({ q, h, w, b }, normalize = true) {
  const project = (x) =>
    Array.from({ length: D_OUT }, (_, o) => dot(x, Array.from(w.slice(o * D_IN, (o + 1) * D_IN))) + (b ? b[o] : 0));
  const hidden = sequences({ ...HEAD.h, values: h, dim: D_IN });
  const documents = hidden.map((tokens) =>
    tokens.map(({ at, x }) => ({ at, x: normalize ? unit(project(x)) : project(x) })),
  );
  return scores(cross(sequences({ ...HEAD.q, values: q, dim: D_OUT }), documents));
}

const HEAD_VALUES = { q: HEAD.q.data, h: HEAD.h.data, w: HEAD.w.data, b: HEAD.b };

export const CODEC = {
  centroids: { data: vectors(66, 6 * DIM), shape: [6, DIM] },
  bucketWeights: [-0.3, -0.1, 0.1, 0.3],
  nbits: 2,
  layout: "plaid",
};
export const RESIDUAL = {
  ...CODEC,
  codes: [5, 0, 3, 3, 1, 2, 4],
  residuals: Uint8Array.from({ length: 14 }, (_, i) => (i * 73 + 29) & 255),
  offsets: [0, 3, 3, 7],
};

export const gradients = [
  {
    name: "of every scoring operator, by every method",
    async run({ engine }) {
      for (const [form, pairs] of FORMS) {
        for (const normalize of [false, true]) {
          const operation = { ...form, normalize };
          const { q, d } = operation;
          const what = `${form.op}, normalize ${normalize}`;
          const { scores: values, argmax } = await forward(engine, operation, { argmax: true });
          const g = seeds(values.length);
          const loss = (qx, dx) => dot(scores(pairs(reference(q, qx), reference(d, dx)), normalize).scores, g);
          const want = {
            q: differences((x) => loss(x, d.data), q.data),
            d: differences((x) => loss(q.data, x), d.data),
          };
          for (const options of [undefined, {}, { method: "auto" }, { method: "unified" }, { method: "lowmem" }, { argmax }]) {
            const got = await engine.backward(operation, g, options);
            closeAll(got.q.data, want.q, 1e-4, `${what}: q`);
            closeAll(got.d.data, want.d, 1e-4, `${what}: d`);
            equal([got.q.shape, got.d.shape], [rows(q), rows(d)], `${what}: shapes`);
            equal([got.q.dtype, got.d.dtype], ["f32", "f32"], "types");
          }
        }
      }
    },
  },
  {
    name: "tokens that do not count get exactly zero, whatever stands there",
    async run({ engine }) {
      const q = { ...MASKED_Q, data: Q.data.slice() };
      const d = { ...MASKED_D, data: D.data.slice() };
      q.data.fill(NaN, 2 * DIM, 3 * DIM);
      d.data.fill(NaN, 4 * DIM, 8 * DIM);
      const got = await engine.backward({ op: "maxsim", q, d, normalize: true }, seeds(8));
      equal([...got.q.data.slice(2 * DIM, 3 * DIM)], new Array(DIM).fill(0), "masked query token");
      equal([...got.d.data.slice(4 * DIM, 8 * DIM)], new Array(4 * DIM).fill(0), "empty document");
      ok([...got.q.data, ...got.d.data].every(Number.isFinite), "NaN behind masks and lengths stays there");
    },
  },
  {
    name: "in the type of their operands",
    async run({ engine }) {
      const half = ({ data, ...rest }) => ({ ...rest, data: Uint16Array.from(data, toF16), dtype: "f16" });
      const [q, d] = [half(Q), half(D)];
      const g = seeds(8);
      const wide = (input) => ({ shape: input.shape, data: Float32Array.from(input.data, fromF16) });
      const want = await engine.backward({ op: "maxsim", q: wide(q), d: wide(d) }, g);
      const got = await engine.backward({ op: "maxsim", q, d: wide(d) }, g);
      equal([got.q.dtype, got.d.dtype, got.q.data instanceof Uint16Array], ["f16", "f32", true], "types");
      closeAll(Float32Array.from(got.q.data, fromF16), Array.from(want.q.data), 2 ** -8, "q");
      closeAll(got.d.data, Array.from(want.d.data), 1e-4, "d");
      const both = await engine.backward({ op: "maxsim", q, d }, g);
      closeAll(Float32Array.from(both.d.data, fromF16), Array.from(want.d.data), 2 ** -8, "d");
    },
  },
  {
    name: "those that are wanted, and gradients as operands",
    async run({ engine }) {
      const operation = { op: "maxsim", q: Q, d: D };
      const all = await engine.backward(operation, Array.from(seeds(8)));
      const q = await engine.backward(operation, seeds(8), { wants: ["q"] });
      equal([Object.keys(q).filter((name) => q[name]), q.q.data], [["q"], all.q.data], "q alone");
      const d = await engine.backward(operation, seeds(8), { wants: ["d"] });
      equal([Object.keys(d).filter((name) => d[name]), d.d.data], [["d"], all.d.data], "d alone");
      equal((await engine.maxsim(all.q, all.d)).shape, [2, 4], "shape");
    },
  },
  {
    name: "of nothing",
    async run({ engine }) {
      const none = new Float32Array(0);
      for (const [q, d, count] of [
        [Q, { data: none, shape: [0, 4, DIM] }, 0],
        [Q, { data: none, shape: [3, 0, DIM] }, 6],
        [{ data: none, shape: [0, 3, DIM] }, D, 0],
      ]) {
        const got = await engine.backward({ op: "maxsim", q, d }, seeds(count));
        equal([[...got.q.data], [...got.d.data]], [q, d].map(({ data }) => new Array(data.length).fill(0)), "gradients");
      }
      const got = await engine.backward({ op: "scorePairs", q: Q, d: D, pairQIdx: [], pairDIdx: [] }, []);
      equal(got.q.data, new Float32Array(Q.data.length), "no pairs");
    },
  },
  {
    name: "explain says by which method",
    async run({ engine }) {
      const of = { op: "maxsim", q: Q, d: D };
      for (const method of ["unified", "lowmem"]) {
        const plan = await engine.explain({ op: "backward", of, gradScores: seeds(8), method });
        ok(plan.kernel.length > 0 && plan.text.includes(plan.kernel), "kernel");
      }
      ok((await engine.explain({ op: "maxsimFromHidden", ...HEAD, argmax: true })).kernel, "kernel of the head");
      const head = { op: "backward", of: { op: "maxsimFromHidden", ...HEAD }, gradScores: seeds(6), wants: ["w"] };
      ok((await engine.explain(head)).kernel, "kernel of the head's gradients");
    },
  },
  {
    name: "the fused head scores projected tokens",
    async run({ engine }) {
      for (const normalize of [undefined, false]) {
        for (const b of [HEAD.b, undefined]) {
          const want = head({ ...HEAD_VALUES, b }, normalize);
          const got = await engine.maxsimFromHidden({ ...HEAD, b, normalize, argmax: true });
          equal([got.shape, got.argmaxShape], [[2, 3], [2, 3, 3]], "shapes");
          close(got.scores, want.scores);
          equal([...got.argmax], want.argmax, "argmax");
        }
      }
      const { q, h, w } = HEAD;
      const packed = { data: h.data.slice(0, 7 * D_IN), dim: D_IN, offsets: [0, 4, 4, 7] };
      packed.data.set(h.data.subarray(8 * D_IN, 11 * D_IN), 4 * D_IN);
      equal(
        (await engine.maxsimFromHidden({ q, h: packed, w })).scores, (await engine.maxsimFromHidden({ q, h, w })).scores,
        "packed documents",
      );
    },
  },
  {
    name: "gradients of the fused head",
    async run({ engine }) {
      const g = seeds(6);
      for (const normalize of [undefined, false]) {
        const input = { ...HEAD, normalize };
        const { argmax } = await engine.maxsimFromHidden({ ...input, argmax: true });
        for (const options of [undefined, { argmax }]) {
          const got = await engine.maxsimFromHiddenBackward(input, g, options);
          for (const [name, values] of Object.entries(HEAD_VALUES)) {
            const want = differences((x) => dot(head({ ...HEAD_VALUES, [name]: x }, normalize).scores, g), values);
            closeAll(got[name].data, want, 1e-4, name);
            equal(got[name].shape, HEAD[name].shape ?? [D_OUT], `shape of ${name}`);
          }
        }
      }
      const { b: _, ...without } = HEAD;
      equal((await engine.maxsimFromHiddenBackward(without, g)).b, undefined, "b where there is none");
      const w = await engine.maxsimFromHiddenBackward(HEAD, g, { wants: ["w"] });
      equal(Object.keys(w).filter((name) => w[name]), ["w"], "w alone");
    },
  },
  {
    name: "of queries with residual documents",
    async run({ engine }) {
      const q = { data: vectors(67, 2 * 3 * DIM), shape: [2, 3, DIM] };
      const ds = sequences({ values: decode(RESIDUAL), dim: DIM, offsets: RESIDUAL.offsets });
      const g = seeds(6);
      const loss = (x) => dot(scores(cross(reference(q, x), ds), true).scores, g);
      const want = differences(loss, q.data);
      for (const options of [undefined, { method: "lowmem" }, { wants: ["q"] }]) {
        const got = await engine.backward({ op: "maxsimResidual", q, d: RESIDUAL }, g, options);
        closeAll(got.q.data, want, 1e-4, "q");
        equal(got.d, undefined, "d");
      }
      const pairs = { op: "scorePairs", q, d: RESIDUAL, pairQIdx: [1, 0], pairDIdx: [2, 0], normalize: true };
      const listed = (x) => {
        const qs = reference(q, x);
        return dot(scores([[qs[1], ds[2]], [qs[0], ds[0]]], true).scores, g);
      };
      closeAll((await engine.backward(pairs, g.slice(0, 2))).q.data, differences(listed, q.data), 1e-4, "q of pairs");
    },
  },
  {
    name: "bad operators, gradients and options",
    async run({ api, engine }) {
      const operation = { op: "maxsim", q: Q, d: D };
      const g = seeds(8);
      const { argmax } = await engine.maxsim(Q, D, { argmax: true });
      const wrong = argmax.slice();
      wrong[5] = 4;
      const BYTES = { data: new Int8Array(80).fill(1), shape: D.shape, scales: 1 };
      const docs = await engine.corpus(D);
      for (const [of, grad, options, code, argument, position] of [
        [undefined, g, {}, "ERR_VALUE", "operation"],
        [{ ...operation, op: "retrieve" }, g, {}, "ERR_VALUE", "op"],
        [{ ...operation, argmax: true }, g, {}, "ERR_VALUE", "argmax"],
        [{ ...operation, pairQIdx: [0] }, g, {}, "ERR_VALUE", "pairQIdx"],
        [{ ...operation, d: undefined }, g, {}, "ERR_VALUE", "d"],
        [{ ...operation, d: docs }, g, {}, "ERR_VALUE", "d"],
        [{ ...operation, d: { ...D, shape: [2, 2, 4, DIM], lengths: [5, 1, 1, 1] } }, g.slice(4), {}, "ERR_INDEX", "d.lengths", 0],
        [{ ...operation, d: BYTES }, g, {}, "ERR_DTYPE", "d"],
        [{ ...operation, q: { ...BYTES, shape: [4, 4, DIM] } }, vectors(1, 16), {}, "ERR_DTYPE", "q"],
        [operation, g.slice(1), {}, "ERR_SHAPE", "gradScores"],
        [operation, undefined, {}, "ERR_DTYPE", "gradScores"],
        [operation, ["1"], {}, "ERR_VALUE", "gradScores", 0],
        [operation, new Float64Array(8), {}, "ERR_DTYPE", "gradScores"],
        [operation, g, { argmax: argmax.slice(1) }, "ERR_SHAPE", "argmax"],
        [operation, g, { argmax: wrong }, "ERR_INDEX", "argmax", 5],
        [operation, g, { argmax: [...argmax] }, "ERR_DTYPE", "argmax"],
        [operation, g, { method: "fast" }, "ERR_VALUE", "method"],
        [operation, g, { wants: "q" }, "ERR_VALUE", "wants"],
        [operation, g, { wants: ["q", "w"] }, "ERR_VALUE", "wants[1]"],
        [operation, g, { want: ["q"] }, "ERR_VALUE", "want"],
        [{ op: "scorePairs", q: Q, d: D, pairQIdx: [2], pairDIdx: [0] }, g, {}, "ERR_INDEX", "pairQIdx", 0],
        [{ op: "maxsimVarlen", q: Q, d: D }, g, {}, "ERR_SHAPE", "q.offsets"],
        [{ op: "maxsimResidual", q: Q, d: D }, g, {}, "ERR_VALUE", "d"],
        [{ op: "maxsimResidual", q: Q, d: RESIDUAL }, g.slice(2), { wants: ["d"] }, "ERR_VALUE", "wants"],
      ]) {
        const error = await rejects(api, engine.backward(of, grad, options), code, argument);
        equal(error.details.position, position, `position in "${error.message}"`);
        if (argument === "operation") continue;
        const { op: name, ...explained } = { op: "backward", of, gradScores: grad, ...options };
        await rejects(api, engine.explain({ op: name, ...explained }), code, argument);
      }
    },
  },
  {
    name: "bad operands of the fused head",
    async run({ api, engine }) {
      const wide = { data: vectors(1, 12), shape: [2, 6] };
      for (const [input, code, argument] of [
        [undefined, "ERR_VALUE", "input"],
        [{ ...HEAD, q: undefined }, "ERR_VALUE", "q"],
        [{ ...HEAD, h: undefined }, "ERR_VALUE", "h"],
        [{ ...HEAD, w: undefined }, "ERR_VALUE", "w"],
        [{ ...HEAD, bias: HEAD.b }, "ERR_VALUE", "bias"],
        [{ ...HEAD, normalize: 1 }, "ERR_VALUE", "normalize"],
        [{ ...HEAD, w: wide }, "ERR_SHAPE", "w"],
        [{ ...HEAD, w: HEAD.w.data }, "ERR_SHAPE", "w"],
        [{ ...HEAD, w: { ...HEAD.w, shape: [3, 5] } }, "ERR_SHAPE", "w.data"],
        [{ ...HEAD, w: { ...HEAD.w, dim: 5 } }, "ERR_SHAPE", "w.dim"],
        [{ ...HEAD, w: { data: new Uint16Array(12), shape: [3, 4] } }, "ERR_DTYPE", "w.dtype"],
        [{ ...HEAD, w: { data: new Int8Array(12), shape: [3, 4] } }, "ERR_DTYPE", "w"],
        [{ ...HEAD, h: { data: vectors(1, 15), shape: [1, 3, 5] } }, "ERR_SHAPE", "h"],
        [{ ...HEAD, h: { ...HEAD.h, lengths: [4, 5, 0] } }, "ERR_INDEX", "h.lengths"],
        [{ ...HEAD, b: vectors(1, 4) }, "ERR_SHAPE", "b"],
      ]) {
        await rejects(api, engine.maxsimFromHidden(input), code, argument);
        await rejects(api, engine.maxsimFromHiddenBackward(input, seeds(6)), code, argument);
      }
      const data = HEAD.w.data.slice();
      data[7] = Infinity;
      const infinite = { ...HEAD, w: { ...HEAD.w, data }, validateFinite: true };
      equal((await rejects(api, engine.maxsimFromHidden(infinite), "ERR_NON_FINITE", "w")).details.position, 7, "position");
      for (const [grad, options, code, argument] of [
        [seeds(5), {}, "ERR_SHAPE", "gradScores"],
        [seeds(6), { argmax: new Int32Array(3) }, "ERR_SHAPE", "argmax"],
        [seeds(6), { argmax: new Int32Array(18).fill(4) }, "ERR_INDEX", "argmax"],
        [seeds(6), { wants: ["d"] }, "ERR_VALUE", "wants[0]"],
        [seeds(6), { method: "lowmem" }, "ERR_VALUE", "method"],
      ]) {
        await rejects(api, engine.maxsimFromHiddenBackward(HEAD, grad, options), code, argument);
      }
      await rejects(api, engine.maxsimFromHiddenBackward({ ...HEAD, argmax: true }, seeds(6)), "ERR_VALUE", "argmax");
    },
  },
];
