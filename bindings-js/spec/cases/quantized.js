// Quantisers, residual documents and scores from centroids, against what SPEC says of bytes and bits.
import { CODEC, RESIDUAL } from "./gradients.js";
import {
  best, close, cross, decode, equal, fromE4m3, fromF16, ok, rejects, scores, sequences, toF16, unit, vectors,
} from "./support.js";

const DIM = 5;
const X = { data: vectors(81, 6 * DIM), shape: [2, 3, DIM] };
const Q = { data: vectors(82, 2 * 3 * DIM), shape: [2, 3, DIM] };
const queries = sequences({ values: Q.data, ...Q, dim: DIM });

/** Finite e4m3 magnitudes, ascending: the byte is the index. */
const E4M3 = Array.from({ length: 127 }, (_, byte) => fromE4m3(byte));

/** Nearest of the ascending `values`, ties to the even index. */
function nearest(values, x) {
  const above = values.findIndex((v) => v >= x);
  if (above <= 0) return above === 0 ? 0 : values.length - 1;
  const [low, high] = [x - values[above - 1], values[above] - x];
  return low < high || (low === high && above % 2) ? above - 1 : above;
}

const e4m3 = (x) => nearest(E4M3, Math.abs(x)) | (x < 0 || Object.is(x, -0) ? 128 : 0);
const int8 = (x) => {
  const [floor, rest] = [Math.floor(x), x - Math.floor(x)];
  return Math.max(-127, Math.min(127, rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor));
};

/** Values and scales as SPEC has them: f32 division, nearest even. */
function quantized(data, group, largest, round) {
  const factors = [];
  const values = [];
  for (let at = 0; at < data.length; at += group) {
    const part = data.slice(at, at + group);
    const scale = Math.fround(Math.max(...part.map(Math.abs), Math.fround(1e-6)) / largest);
    factors.push(scale);
    values.push(...Array.from(part, (x) => round(Math.fround(x / scale))));
  }
  return { values, scales: Float32Array.from(factors) };
}

/** The codes of the rows of `x`, and their residuals in the layout of `codec`. */
function encode(x, { centroids, nbits, layout }, cutoffs) {
  const dim = centroids.shape[1];
  const width = Math.ceil((dim * nbits) / 8);
  const rows = Array.from({ length: x.length / dim }, (_, t) => x.slice(t * dim, (t + 1) * dim));
  const centroid = (c) => centroids.data.slice(c * dim, (c + 1) * dim);
  const codes = rows.map((row) => {
    const products = Array.from({ length: centroids.shape[0] }, (_, c) => row.reduce((s, v, f) => s + v * centroid(c)[f], 0));
    return products.indexOf(Math.max(...products));
  });
  const residuals = new Uint8Array(rows.length * width);
  rows.forEach((row, t) => {
    row.forEach((v, f) => {
      const rest = Math.fround(v - centroid(codes[t])[f]);
      const bucket = cutoffs.filter((cutoff) => cutoff < rest).length;
      for (let k = 0; k < nbits; k++) {
        const bit = f * nbits + k;
        const at = layout === "plaid" ? 7 - (bit & 7) : bit & 7;
        residuals[t * width + (bit >> 3)] |= ((bucket >> k) & 1) << at;
      }
    });
  });
  return { codes, residuals };
}

const ascending = (count) => Float32Array.from({ length: count }, (_, i) => (i + 1) / (count + 1) - 0.5);
const codec = (nbits, layout) => ({ ...CODEC, nbits, layout, bucketWeights: ascending(2 ** nbits) });

/** Bad codecs: what to put in place, code, field. */
const CODECS = [
  [{ layout: undefined }, "ERR_VALUE", "layout"],
  [{ layout: "colbert" }, "ERR_VALUE", "layout"],
  [{ nbits: 3 }, "ERR_VALUE", "nbits"],
  [{ nbits: 16 }, "ERR_VALUE", "nbits"],
  [{ nbits: "2" }, "ERR_VALUE", "nbits"],
  [{ nbits: undefined }, "ERR_VALUE", "nbits"],
  [{ bucketWeights: [0, 1] }, "ERR_SHAPE", "bucketWeights"],
  [{ bucketWeights: undefined }, "ERR_DTYPE", "bucketWeights"],
  [{ centroids: undefined }, "ERR_VALUE", "centroids"],
  [{ centroids: { ...CODEC.centroids, shape: [5, DIM] } }, "ERR_SHAPE", "centroids.data"],
  [{ centroids: CODEC.centroids.data }, "ERR_SHAPE", "centroids"],
  [{ centroids: { data: new Int8Array(30), dim: DIM } }, "ERR_DTYPE", "centroids"],
];

/** Bad codes. */
const CODES = [
  [{ codes: [5, 0, 3, 6, 1, 2, 4] }, "ERR_INDEX", "codes", 3],
  [{ codes: [5, 0, 3, -1, 1, 2, 4] }, "ERR_INDEX", "codes", 3],
  [{ codes: undefined }, "ERR_DTYPE", "codes"],
  [{ offsets: [0, 3, 8] }, "ERR_INDEX", "offsets", 2],
  [{ offsets: [1, 7] }, "ERR_INDEX", "offsets", 0],
  [{ offsets: [] }, "ERR_SHAPE", "offsets"],
  [{ offsets: undefined }, "ERR_SHAPE", "offsets"],
  [{ lengths: [7] }, "ERR_VALUE", "offsets"],
  [{ offsets: undefined, lengths: [8] }, "ERR_INDEX", "lengths", 0],
  [{ offsets: undefined, lengths: [2, 2] }, "ERR_SHAPE", "codes"],
  [{ offsets: undefined, lengths: [] }, "ERR_SHAPE", "codes"],
];

export const quantizers = [
  {
    name: "fp8 and int8: the bytes and scales of SPEC",
    async run({ api }) {
      const data = X.data.slice();
      data.set([0, -0, 1, 0.5, -1e-9], 10); // a row with ties and zeros
      data.fill(0, 20, 25); // and one without anything
      for (const [quantize, dtype, largest, round, type] of [
        [api.quantizeFp8, "fp8", 448, e4m3, Uint8Array],
        [api.quantizeInt8, "int8", 127, int8, Int8Array],
      ]) {
        for (const [options, group] of [[undefined, DIM], [{ scale: "token" }, DIM], [{ scale: "tensor" }, data.length]]) {
          const got = await quantize({ ...X, data }, options);
          const want = quantized(data, group, largest, round);
          equal([got.dtype, got.shape, got.data instanceof type], [dtype, X.shape, true], "type and shape");
          equal(got.scales, want.scales, "scales");
          equal([...got.data], [...type.from(want.values)], `${dtype} values`);
          const value = dtype === "fp8" ? fromE4m3 : (x) => x;
          const back = await api.dequantize(got);
          equal([back.dtype, back.shape], ["f32", X.shape], "type and shape");
          equal(
            back.data,
            Float32Array.from(got.data, (x, i) => value(x) * got.scales[got.scales.length === 1 ? 0 : Math.floor(i / DIM)]),
            "dequantised values",
          );
        }
        const f16 = Uint16Array.from(data, toF16);
        const half = await quantize({ data: f16, dtype: "f16", dim: DIM });
        equal([half.shape, half.scales], [[6, DIM], quantized(Float32Array.from(f16, fromF16), DIM, largest, round).scales], "f16");
        equal((await quantize(data)).scales.length, 1, "scales of a vector");
        equal((await quantize({ data: new Float32Array(0), shape: [0, 3, DIM] })).shape, [0, 3, DIM], "nothing");
      }
    },
  },
  {
    name: "quantised arrays are operands, at every precision that the backend has",
    async run({ api, engine }) {
      const want = scores(cross(queries, sequences({ values: X.data, ...X, dim: DIM }))).scores;
      for (const [quantize, tolerance] of [[api.quantizeFp8, 5e-2], [api.quantizeInt8, 2e-2]]) {
        for (const scale of ["token", "tensor"]) {
          close((await engine.maxsim(Q, await quantize(X, { scale }))).scores, want, tolerance);
        }
      }
      const [q8, d8] = [await api.quantizeInt8(Q), await api.quantizeInt8(X)];
      close((await engine.maxsim(q8, d8, { precision: "int8" })).scores, want, 4e-2, "int8 by int8");
    },
  },
  {
    name: "corpora stored as fp8 and int8",
    async run({ engine }) {
      const data = vectors(83, 40 * 6 * 32);
      const documents = { data, shape: [40, 6, 32], lengths: Array.from({ length: 40 }, (_, i) => i % 7) };
      const query = vectors(84, 4 * 32);
      const wide = await engine.corpus(documents);
      const want = (await wide.score(query)).scores;
      for (const [storage, tolerance] of [["fp8", 5e-2], ["int8", 2e-2]]) {
        const docs = await engine.corpus({ ...documents, storage });
        equal([docs.dtype, docs.normalized], [storage, true], "facts");
        ok(docs.bytes < wide.bytes / 2, `${docs.bytes} bytes of ${wide.bytes}`);
        close((await docs.score(query)).scores, Array.from(want), tolerance);
        equal((await docs.search(query, { topK: 3 })).indices[0], best(Array.from(want), 1)[0], "best");
        await docs.dispose();
      }
    },
  },
  {
    name: "bad input of quantisers",
    async run({ api }) {
      const data = X.data.slice();
      data[13] = NaN;
      for (const quantize of [api.quantizeFp8, api.quantizeInt8]) {
        const error = await rejects(api, quantize({ ...X, data }), "ERR_NON_FINITE", "x");
        equal(error.details.position, 13, "position");
        for (const [x, options, code, argument] of [
          [undefined, {}, "ERR_VALUE", "x"],
          [[1, 2], {}, "ERR_VALUE", "x"],
          [{ ...X, shape: [7, DIM] }, {}, "ERR_SHAPE", "x.data"],
          [{ data: X.data, dim: 7 }, {}, "ERR_SHAPE", "x.data"],
          [{ data: X.data, shape: [] }, {}, "ERR_SHAPE", "x.data"],
          [{ data: new Int8Array(5), dim: DIM }, {}, "ERR_DTYPE", "x"],
          [X, { scale: "row" }, "ERR_VALUE", "scale"],
          [X, { mode: "token" }, "ERR_VALUE", "mode"],
          [{ ...X, mask: [] }, {}, "ERR_VALUE", "mask"],
        ]) {
          await rejects(api, quantize(x, options), code, argument);
        }
      }
      const bytes = { data: new Int8Array(30), shape: X.shape };
      for (const [x, code, argument] of [
        [undefined, "ERR_VALUE", "x"],
        [bytes, "ERR_DTYPE", "x.scales"],
        [{ ...bytes, scales: [1, 2] }, "ERR_SHAPE", "x.scales"],
        [{ ...bytes, scales: "1" }, "ERR_DTYPE", "x.scales"],
        [{ ...bytes, scales: -1 }, "ERR_VALUE", "x.scales"],
        [{ ...bytes, scales: [1, 1, NaN, 1, 1, 1] }, "ERR_VALUE", "x.scales"],
        [{ ...X, scales: 1 }, "ERR_DTYPE", "x"],
      ]) {
        await rejects(api, api.dequantize(x), code, argument);
      }
    },
  },
  {
    name: "residuals of every width and layout, there and back",
    async run({ api, engine }) {
      const data = vectors(85, 9 * DIM);
      for (const layout of ["plaid", "lik"]) {
        for (const nbits of [1, 2, 4, 8]) {
          const by = codec(nbits, layout);
          const cutoffs = ascending(2 ** nbits - 1);
          const want = encode(data, by, cutoffs);
          const got = await engine.quantizeResidual({ data, dim: DIM }, by, cutoffs);
          equal([...got.codes], want.codes, `codes of ${nbits} bits`);
          equal(got.residuals, want.residuals, `${layout} residuals of ${nbits} bits`);
          const documents = { ...by, ...got, offsets: [0, 4, 4, 9] };
          const vectorsOf = decode(documents);
          const plain = await api.decodeResidual(documents, { normalize: false });
          equal([plain.dtype, plain.shape], ["f32", [9, DIM]], "type and shape");
          close(plain.data, vectorsOf, 1e-6, "decoded");
          const rows = Array.from({ length: 9 }, (_, t) => vectorsOf.slice(t * DIM, (t + 1) * DIM));
          close((await api.decodeResidual(documents)).data, rows.flatMap(unit), 1e-6, "normalised");
          close(got.invNorms, rows.map((row) => 1 / Math.hypot(...row)), 1e-5, "invNorms");
        }
      }
      const { offsets: _, ...padded } = RESIDUAL;
      const lengths = { ...padded, codes: [...RESIDUAL.codes, 99], residuals: new Uint8Array(16), lengths: [4, 3] };
      const both = await api.decodeResidual(lengths, { normalize: false });
      equal([both.shape, [...both.data.slice(7 * DIM)]], [[2, 4, DIM], new Array(DIM).fill(0)], "padded");
      const zeros = await api.decodeResidual({ ...RESIDUAL, invNorms: new Float32Array(7) });
      equal([...zeros.data], new Array(7 * DIM).fill(0), "stored norms are used");
      equal((await engine.quantizeResidual({ data: new Float32Array(0), dim: DIM }, CODEC, [0, 0, 0])).codes.length, 0, "nothing");
    },
  },
  {
    name: "bad codecs, codes and residuals",
    async run({ api, engine }) {
      const codecCalls = (bad) => [
        ["codec", () => engine.quantizeResidual({ data: X.data, dim: DIM }, { ...CODEC, ...bad }, [0, 0, 0])],
      ];
      const documentCalls = (bad) => {
        const d = { ...RESIDUAL, ...bad };
        return [
          ["d", () => engine.maxsimResidual(Q, d)],
          ["d", () => engine.maxsim(Q, d)],
          ["d", () => engine.retrieve(Q, d, { topK: 1 })],
          ["d", () => engine.backward({ op: "maxsimResidual", q: Q, d }, [1])],
          ["d", () => api.decodeResidual(d)],
          ["", () => engine.corpus(d)],
        ];
      };
      const check = async (calls, code, field, position) => {
        // One after the other: a rejection that nobody awaits yet ends the process.
        for (const [name, start] of calls) {
          const error = await rejects(api, start(), code, name === "" ? field : `${name}.${field}`);
          equal(error.details.position, position, `position in "${error.message}"`);
        }
      };
      for (const [bad, code, field] of CODECS) await check([...codecCalls(bad), ...documentCalls(bad)], code, field);
      for (const [bad, code, field, position] of CODES) await check(documentCalls(bad), code, field, position);
      for (const [bad, code, field] of [
        [{ residuals: RESIDUAL.residuals.slice(1) }, "ERR_SHAPE", "residuals"],
        [{ residuals: new Uint8Array(21) }, "ERR_SHAPE", "residuals"],
        [{ residuals: [...RESIDUAL.residuals] }, "ERR_DTYPE", "residuals"],
        [{ residuals: undefined }, "ERR_DTYPE", "residuals"],
        [{ invNorms: new Float32Array(6) }, "ERR_SHAPE", "invNorms"],
        [{ invNorms: new Int8Array(7) }, "ERR_DTYPE", "invNorms"],
        [{ invNorms: new Uint16Array(7) }, "ERR_DTYPE", "invNorms.dtype"],
      ]) {
        await check(documentCalls(bad), code, field);
      }
      await rejects(api, engine.maxsimResidual(Q, { ...RESIDUAL, weights: [] }), "ERR_VALUE", "weights");
      await rejects(api, engine.maxsimResidual({ data: vectors(1, 6), dim: 6 }, RESIDUAL), "ERR_SHAPE", "d");
      await rejects(api, engine.maxsimResidual(Q, X), "ERR_VALUE", "d");
      await rejects(api, api.decodeResidual(undefined), "ERR_VALUE", "d");
      await rejects(api, api.decodeResidual(RESIDUAL, { normalise: true }), "ERR_VALUE", "normalise");

      const x = { data: X.data, dim: DIM };
      const data = X.data.slice();
      data[3] = Infinity;
      for (const [input, cutoffs, code, argument] of [
        [x, [0, 1], "ERR_SHAPE", "cutoffs"],
        [x, [1, 0, 2], "ERR_VALUE", "cutoffs"],
        [x, [0, NaN, 2], "ERR_VALUE", "cutoffs"],
        [x, undefined, "ERR_DTYPE", "cutoffs"],
        [X, [0, 1, 2], "ERR_SHAPE", "x"],
        [{ data: X.data, dim: 6 }, [0, 1, 2], "ERR_SHAPE", "x"],
        [{ data, dim: DIM }, [0, 1, 2], "ERR_NON_FINITE", "x"],
        [undefined, [0, 1, 2], "ERR_VALUE", "x"],
      ]) {
        await rejects(api, engine.quantizeResidual(input, CODEC, cutoffs), code, argument);
      }
    },
  },
  {
    name: "aborted and disposed calls",
    async run({ api, create }) {
      const engine = await create();
      const signal = AbortSignal.abort("no");
      const head = { q: { data: vectors(1, 3), dim: 3 }, h: { data: vectors(2, 8), dim: 4 }, w: { data: vectors(3, 12), dim: 4 } };
      const table = { data: new Float32Array(12), dim: 2 };
      const operation = { op: "maxsim", q: Q, d: X };
      const calls = (options) => [
        () => engine.backward(operation, [1, 1, 1, 1], options),
        () => engine.maxsimFromHidden({ ...head, ...options }),
        () => engine.maxsimFromHiddenBackward(head, [1], options),
        () => engine.maxsimResidual(Q, RESIDUAL, options),
        () => engine.plaidApproxScore(table, { codes: [0], lengths: [1] }, options),
        () => engine.quantizeResidual({ data: X.data, dim: DIM }, CODEC, [0, 0, 0], options),
        () => engine.corpus({ ...RESIDUAL, ...options }),
      ];
      const free = [
        () => api.quantizeFp8(X, { signal }),
        () => api.quantizeInt8(X, { signal }),
        () => api.dequantize({ data: new Int8Array(5), dim: DIM, scales: 1 }, { signal }),
        () => api.decodeResidual(RESIDUAL, { signal }),
      ];
      for (const start of [...calls({ signal }), ...free]) {
        equal(await start().catch((reason) => reason), "no", "reason");
      }
      await engine.dispose();
      for (const start of calls({})) await rejects(api, start(), "ERR_DISPOSED");
      await rejects(api, engine.explain({ op: "backward", of: operation, gradScores: [1, 1, 1, 1] }), "ERR_DISPOSED");
    },
  },
];

export const plaid = [
  {
    name: "residual documents are scored as the vectors they stand for",
    async run({ engine }) {
      for (const layout of ["plaid", "lik"]) {
        for (const nbits of [1, 2, 4, 8]) {
          const width = Math.ceil((DIM * nbits) / 8);
          const residuals = Uint8Array.from({ length: 7 * width }, (_, i) => (i * 151 + 77) & 255);
          const d = { ...RESIDUAL, ...codec(nbits, layout), residuals };
          const ds = sequences({ values: decode(d), dim: DIM, offsets: d.offsets });
          const want = scores(cross(queries, ds), true);
          const got = await engine.maxsimResidual(Q, d, { argmax: true });
          equal([got.shape, got.argmaxShape], [[2, 3], [2, 3, 3]], "shapes");
          close(got.scores, want.scores);
          equal([...got.argmax], want.argmax, "argmax");
          equal((await engine.maxsim(Q, d, { normalize: true })).scores, got.scores, "maxsim");
          close((await engine.maxsimResidual(Q, d, { normalize: false })).scores, scores(cross(queries, ds)).scores);
          const hits = await engine.retrieve(Q, d, { topK: 2 });
          equal([...hits.indices], [...best(want.scores.slice(0, 3), 2), ...best(want.scores.slice(3), 2)], "indices");
          const pairs = await engine.scorePairs(Q, d, [1, 0], [2, 0], { normalize: true });
          close(pairs.scores, [want.scores[5], want.scores[0]]);
        }
      }
    },
  },
  {
    name: "padded residual documents, bare queries, stored norms, other centroids",
    async run({ engine }) {
      const { offsets: _, ...rest } = RESIDUAL;
      const padded = { ...rest, codes: [...RESIDUAL.codes, 999], residuals: Uint8Array.of(...RESIDUAL.residuals, 0, 0), lengths: [4, 3] };
      const ds = sequences({ values: decode(RESIDUAL), dim: DIM, offsets: [0, 4, 7] });
      const want = scores(cross(queries, ds), true).scores;
      close((await engine.maxsimResidual(Q, padded)).scores, want);
      const bare = await engine.maxsimResidual(Q.data.subarray(0, 3 * DIM), padded);
      equal(bare.shape, [2], "shape");
      close(bare.scores, want.slice(0, 2));
      const ones = await engine.maxsimResidual(Q, { ...padded, invNorms: new Float32Array(8).fill(1) });
      const plain = sequences({ values: Q.data, ...Q, dim: DIM }).map((tokens) =>
        Object.assign(tokens.map(({ at, x }) => ({ at, x: unit(x) })), { extent: tokens.extent }),
      );
      close(ones.scores, scores(cross(plain, ds)).scores, 1e-5, "scores with stored norms");
      const data = Uint16Array.from(CODEC.centroids.data, toF16);
      const half = { ...RESIDUAL, centroids: { data, dtype: "f16", shape: CODEC.centroids.shape } };
      const wide = { ...RESIDUAL, centroids: { data: Float32Array.from(data, fromF16), shape: CODEC.centroids.shape } };
      close((await engine.maxsimResidual(Q, half)).scores, Array.from((await engine.maxsimResidual(Q, wide)).scores), 1e-4);
    },
  },
  {
    name: "corpora of residual documents",
    async run({ engine }) {
      const docs = await engine.corpus(RESIDUAL);
      equal([docs.count, docs.dim, docs.normalized], [3, DIM, true], "facts");
      const want = (await engine.maxsimResidual(Q, RESIDUAL)).scores;
      equal((await docs.score(Q)).scores, want, "scores");
      const { indices, scores: found } = await docs.search(Q.data.subarray(0, 3 * DIM), { topK: 3 });
      const order = best(Array.from(want.slice(0, 3)), 3);
      equal([[...indices], [...found]], [order, order.map((j) => want[j])], "hits");
      await docs.dispose();
    },
  },
  {
    name: "approximate scores from centroids alone",
    async run({ api, engine }) {
      const table = { data: vectors(86, 6 * 4), shape: [6, 4] };
      const { codes, offsets } = RESIDUAL;
      const value = (code, s) => table.data[code * 4 + s];
      const want = [[5, 0, 3], [], [3, 1, 2, 4]].map((document) =>
        [0, 1, 2, 3].reduce((sum, s) => sum + (document.length ? Math.max(...document.map((c) => value(c, s))) : 0), 0),
      );
      const packed = await engine.plaidApproxScore(table, { codes, offsets });
      equal(packed.shape, [3], "shape");
      close(packed.scores, want);
      const padded = { codes: [5, 0, 3, 99, 99, 99, 99, 99, 3, 1, 2, 4], lengths: [3, 0, 4] };
      close((await engine.plaidApproxScore(table, padded)).scores, want);
      const half = { data: Uint16Array.from(table.data, toF16), dtype: "f16", shape: [6, 4] };
      close((await engine.plaidApproxScore(half, { codes, offsets })).scores, want, 2e-3);
      ok((await engine.explain({ op: "plaidApproxScore", queryCentroidScores: table, d: padded })).kernel, "kernel");
      equal((await engine.plaidApproxScore(table, { codes: [], offsets: [0] })).shape, [0], "no documents");
      for (const [bad, code, field, position] of CODES) {
        const call = engine.plaidApproxScore(table, { codes, offsets, ...bad });
        equal((await rejects(api, call, code, `d.${field}`)).details.position, position, "position");
      }
      for (const [bad, code, argument] of [
        [undefined, "ERR_VALUE", "queryCentroidScores"],
        [table.data, "ERR_SHAPE", "queryCentroidScores"],
        [{ ...half, dtype: "bf16" }, "ERR_DTYPE", "queryCentroidScores"],
        [{ ...table, shape: [6, 5] }, "ERR_SHAPE", "queryCentroidScores.data"],
      ]) {
        await rejects(api, engine.plaidApproxScore(bad, { codes, offsets }), code, argument);
      }
      await rejects(api, engine.plaidApproxScore(table, undefined), "ERR_VALUE", "d");
      await rejects(api, engine.plaidApproxScore(table, { codes, offsets, nbits: 2 }), "ERR_VALUE", "nbits");
    },
  },
];
