// Every bad input: its code and the argument it is about.
import { equal, ok, rejection, rejects, vectors } from "./support.js";

const DIM = 4;
const Q = { data: vectors(31, 2 * 3 * DIM), shape: [2, 3, DIM] };
const D = { data: vectors(32, 5 * 3 * DIM), shape: [5, 3, DIM] };
const ONE = { data: Q.data.slice(0, 3 * DIM), dim: DIM };
const PACKED = { data: D.data, dim: DIM, offsets: [0, 7, 15] };
const BYTES = new Int8Array(15 * DIM).fill(1);

/** Bad documents: what to put in place of `D`, code, field. */
const TOKENS = [
  [{ shape: [5, 3, DIM] }, "ERR_DTYPE", "data"],
  [{ ...D, data: [1, 2, 3] }, "ERR_DTYPE", "data"],
  [{ ...D, data: new Float64Array(60) }, "ERR_DTYPE", "data"],
  [{ ...D, data: new DataView(new ArrayBuffer(8)) }, "ERR_DTYPE", "data"],
  [{ ...D, dtype: "f16" }, "ERR_DTYPE", "data"],
  [{ ...D, dtype: "f64" }, "ERR_VALUE", "dtype"],
  [{ ...D, data: new Uint16Array(60) }, "ERR_DTYPE", "dtype"],
  [{ ...D, shape: [5, 4, DIM] }, "ERR_SHAPE", "data"],
  [{ ...D, shape: [60] }, "ERR_SHAPE", "data"],
  [{ ...D, shape: [60, 1, 0] }, "ERR_SHAPE", "data"],
  [{ ...D, shape: [2 ** 40, 2 ** 40, DIM] }, "ERR_LIMIT", "data"],
  [{ ...D, shape: [5, -3, DIM] }, "ERR_VALUE", "shape[1]"],
  [{ ...D, shape: [5, 3, 4.5] }, "ERR_VALUE", "shape[2]"],
  [{ ...D, shape: "5,3,4" }, "ERR_SHAPE", "shape"],
  [{ ...D, dim: 5 }, "ERR_SHAPE", "dim"],
  [{ ...D, offsets: [0, 15] }, "ERR_VALUE", "offsets"],
  [{ data: D.data }, "ERR_SHAPE", "shape"],
  [{ data: D.data, dim: 0 }, "ERR_SHAPE", "dim"],
  [{ data: D.data, dim: 7 }, "ERR_SHAPE", "data"],
  [{ data: D.data, dim: 7, offsets: [0] }, "ERR_SHAPE", "data"],
  [{ data: D.data, dim: 0, offsets: [0] }, "ERR_SHAPE", "data"],
  [{ ...PACKED, offsets: [] }, "ERR_SHAPE", "offsets"],
  [{ ...PACKED, offsets: [1, 15] }, "ERR_INDEX", "offsets", 0],
  [{ ...PACKED, offsets: [0, 9, 7, 15] }, "ERR_INDEX", "offsets", 2],
  [{ ...PACKED, offsets: [0, 14] }, "ERR_INDEX", "offsets", 1],
  [{ ...PACKED, offsets: Int32Array.of(0, -1, 15) }, "ERR_INDEX", "offsets", 1],
  [{ ...PACKED, offsets: BigInt64Array.of(0n, -1n, 15n) }, "ERR_INDEX", "offsets", 1],
  [{ ...PACKED, offsets: [0, 1.5, 15] }, "ERR_INDEX", "offsets", 1],
  [{ ...PACKED, offsets: [0, "7", 15] }, "ERR_INDEX", "offsets", 1],
  [{ ...PACKED, offsets: [0, 2 ** 32, 15] }, "ERR_LIMIT", "offsets", 1],
  [{ ...PACKED, offsets: BigUint64Array.of(0n, 2n ** 32n, 15n) }, "ERR_LIMIT", "offsets", 1],
  [{ ...PACKED, offsets: Float32Array.of(0, 15) }, "ERR_DTYPE", "offsets"],
  [{ ...PACKED, offsets: 15 }, "ERR_DTYPE", "offsets"],
  [{ ...PACKED, lengths: [7, 8] }, "ERR_SHAPE", "lengths"],
  [{ ...D, lengths: [3, 3, 3, 3] }, "ERR_SHAPE", "lengths"],
  [{ ...D, lengths: [3, 3, 4, 3, 3] }, "ERR_INDEX", "lengths", 2],
  [{ ...D, lengths: [3, 3, -1, 3, 3] }, "ERR_INDEX", "lengths", 2],
  [{ ...D, mask: new Uint8Array(14) }, "ERR_SHAPE", "mask"],
  [{ ...D, mask: [true] }, "ERR_SHAPE", "mask"],
  [{ ...D, mask: new Array(15).fill(1) }, "ERR_VALUE", "mask", 0],
  [{ ...D, mask: new Float32Array(15) }, "ERR_DTYPE", "mask"],
  [{ ...D, scales: 1 }, "ERR_DTYPE", "scales"],
  [{ ...D, data: BYTES }, "ERR_VALUE", "scales"],
  [{ ...D, data: BYTES, scales: [1, 2] }, "ERR_SHAPE", "scales"],
  [{ ...D, data: BYTES, scales: 0 }, "ERR_VALUE", "scales"],
  [{ ...D, data: BYTES, scales: NaN }, "ERR_VALUE", "scales"],
  [{ ...D, data: BYTES, scales: ["1"] }, "ERR_VALUE", "scales", 0],
  [{ ...D, data: BYTES, scales: "1" }, "ERR_DTYPE", "scales"],
];

export const errors = [
  {
    name: "bad tokens, as documents and as queries",
    async run({ api, engine }) {
      for (const [input, code, field, position] of TOKENS) {
        const error = await rejects(api, engine.maxsim(ONE, input), code, `d.${field}`);
        equal(error.details.position, position, `position in "${error.message}"`);
        await rejects(api, engine.maxsim(input, D), code, `q.${field}`);
      }
    },
  },
  {
    name: "bad tokens of a corpus and of a search",
    async run({ api, engine }) {
      for (const [input, code, field] of TOKENS) {
        const normalize = input.data === BYTES ? { normalize: false } : {};
        await rejects(api, engine.corpus({ ...input, ...normalize }), code, field);
      }
      const docs = await engine.corpus(D);
      await rejects(api, docs.search(new Float32Array(7), { topK: 1 }), "ERR_SHAPE", "query.data");
      await rejects(api, docs.search({ ...ONE, mask: [true] }, { topK: 1 }), "ERR_SHAPE", "query.mask");
      await rejects(api, docs.search({ data: new Float32Array(15), dim: 5 }, { topK: 1 }), "ERR_SHAPE", "d");
      await rejects(api, docs.search({ ...Q, shape: [1, 2, 3, DIM] }, { topK: 1 }), "ERR_SHAPE", "query");
      await rejects(api, docs.search(undefined, { topK: 1 }), "ERR_VALUE", "query");
    },
  },
  {
    name: "operands of the wrong kind",
    async run({ api, engine }) {
      for (const value of [undefined, null, 5, "q"]) {
        await rejects(api, engine.maxsim(value, D), "ERR_VALUE", "q");
        await rejects(api, engine.maxsim(Q, value), "ERR_VALUE", "d");
        await rejects(api, engine.corpus(value), "ERR_VALUE", "documents");
      }
      await rejects(api, engine.maxsim(Q.data, D), "ERR_SHAPE", "q");
      await rejects(api, engine.maxsim(Q, D.data), "ERR_SHAPE", "d");
      await rejects(api, engine.maxsim({ ...Q, masks: [] }, D), "ERR_VALUE", "masks");
    },
  },
  {
    name: "operands that do not fit each other",
    async run({ api, engine }) {
      const wide = { data: new Float32Array(12), shape: [1, 2, 6] };
      await rejects(api, engine.maxsim(Q, wide), "ERR_SHAPE", "d");
      await rejects(api, engine.maxsim({ ...Q, shape: [1, 2, 3, DIM] }, D), "ERR_SHAPE", "q");
      await rejects(api, engine.maxsimPairs(Q, D), "ERR_SHAPE", "d");
      await rejects(api, engine.maxsim(Q, { ...D, shape: [5, 1, 3, DIM] }), "ERR_SHAPE", "d");
      await rejects(api, engine.maxsimPadded(Q, D), "ERR_SHAPE", "d");
      await rejects(api, engine.packPadded(Q, D), "ERR_SHAPE", "d");
      await rejects(api, engine.packPadded({ ...Q, shape: [5, 1, 6], data: new Float32Array(30) }, { ...D, shape: [5, 1, 3, DIM] }), "ERR_SHAPE", "d");
      await rejects(
        api, engine.packPadded({ ...ONE, mask: [true, true, false] }, { ...D, shape: [1, 5, 3, DIM] }), "ERR_VALUE", "q",
      );
      await rejects(api, engine.maxsimVarlen(Q, PACKED), "ERR_SHAPE", "q.offsets");
      await rejects(api, engine.maxsimVarlen(PACKED, D), "ERR_SHAPE", "d.offsets");
      await rejects(api, engine.retrieve(Q, { ...D, shape: [5, 1, 3, DIM] }, { topK: 1 }), "ERR_SHAPE", "d");
      await rejects(api, engine.corpus({ ...D, shape: [5, 1, 3, DIM] }), "ERR_SHAPE", "documents");
    },
  },
  {
    name: "bad pairs",
    async run({ api, engine }) {
      for (const [a, b, code, argument, position] of [
        [[0, 2], [0, 0], "ERR_INDEX", "pairQIdx", 1],
        [[0], [5], "ERR_INDEX", "pairDIdx", 0],
        [[0, 1], [0], "ERR_SHAPE", "pairDIdx"],
        [[-1], [0], "ERR_INDEX", "pairQIdx", 0],
        [[0], Float32Array.of(0), "ERR_DTYPE", "pairDIdx"],
        [undefined, [0], "ERR_DTYPE", "pairQIdx"],
      ]) {
        const error = await rejects(api, engine.scorePairs(Q, D, a, b), code, argument);
        equal(error.details.position, position, "position");
      }
    },
  },
  {
    name: "bad options name the option",
    async run({ api, engine, create }) {
      for (const [options, argument] of [
        [{ normalise: true }, "normalise"],
        [{ normalize: 1 }, "normalize"],
        [{ argmax: "yes" }, "argmax"],
        [{ precision: "double" }, "precision"],
        [{ validateFinite: 0 }, "validateFinite"],
        [{ signal: {} }, "signal"],
        [{ topK: 3 }, "topK"],
        ["fast", "options"],
        [null, "options"],
      ]) {
        await rejects(api, engine.maxsim(Q, D, options), "ERR_VALUE", argument);
      }
      const docs = await engine.corpus(D);
      for (const [options, argument] of [
        [{}, "topK"],
        [undefined, "topK"],
        [{ topK: 0 }, "topK"],
        [{ topK: -1 }, "topK"],
        [{ topK: 1.5 }, "topK"],
        [{ topK: "3" }, "topK"],
        [{ topK: 1, chunk: 0 }, "chunk"],
        [{ topK: 1, largest: 1 }, "largest"],
        [{ topK: 1, sorted: 1 }, "sorted"],
        [{ topK: 1, explain: 1 }, "explain"],
        [{ topK: 1, top_k: 1 }, "top_k"],
      ]) {
        await rejects(api, engine.retrieve(Q, D, options), "ERR_VALUE", argument);
        await rejects(api, docs.search(ONE, options), "ERR_VALUE", argument);
        await rejects(api, engine.scorer().retrieve(Q, D, options), "ERR_VALUE", argument);
      }
      await rejects(api, docs.search(ONE, { topK: 1, normalize: true }), "ERR_VALUE", "normalize");
      await rejects(api, engine.corpus({ ...D, storage: "f64" }), "ERR_VALUE", "storage");
      await rejects(api, engine.corpus({ ...D, normalize: "no" }), "ERR_VALUE", "normalize");
      await rejects(api, engine.corpus({ ...D, stored: "f16" }), "ERR_VALUE", "stored");
      for (const [options, argument] of [
        [{ backend: "gpu" }, "backend"],
        [{ threads: 0 }, "threads"],
        [{ threads: -1 }, "threads"],
        [{ threads: 1e9 }, "threads"],
        [{ cpuLevel: "sse" }, "cpuLevel"],
        [{ gpuTier: "best" }, "gpuTier"],
        [{ gpuMemory: -1 }, "gpuMemory"],
        [{ silent: "yes" }, "silent"],
        [{ backends: "cpu" }, "backends"],
      ]) {
        await rejects(api, create(options), "ERR_VALUE", argument);
      }
      for (const [operation, argument] of [
        [undefined, "operation"],
        [{ op: "sum", q: Q, d: D }, "op"],
        [{ op: "maxsim", q: Q, d: D, topK: 1 }, "topK"],
        [{ op: "maxsim", q: Q, d: D, pairQIdx: [0] }, "pairQIdx"],
        [{ op: "retrieve", q: Q, d: D }, "topK"],
      ]) {
        await rejects(api, engine.explain(operation), "ERR_VALUE", argument);
      }
    },
  },
  {
    name: "bad use of scorers",
    async run({ api, engine }) {
      const scorer = engine.scorer({ maskPadToken: 0 });
      await rejects(api, engine.scorer().forwardWithIds(Q, [], D, []), "ERR_VALUE", "maskPadToken");
      await rejects(api, scorer.forwardWithIds(Q, [1], D, new Int32Array(15)), "ERR_SHAPE", "qIds");
      await rejects(api, scorer.forwardWithIds(Q, new Int32Array(6), D, [1]), "ERR_SHAPE", "dIds");
      await rejects(api, scorer.forwardWithIds(Q, new Float32Array(6), D, [1]), "ERR_DTYPE", "qIds");
      await rejects(api, scorer.score(Q, D), "ERR_SHAPE", "q");
      for (const options of [{ maskPadToken: 0.5 }, { maskPadToken: "0" }]) {
        await rejects(api, (async () => engine.scorer(options))(), "ERR_VALUE", "maskPadToken");
      }
    },
  },
  {
    name: "validateFinite finds the first number that is none",
    async run({ api, engine }) {
      const data = D.data.slice();
      data[17] = Infinity;
      const error = await rejects(api, engine.maxsim(Q, { ...D, data }, { validateFinite: true }), "ERR_NON_FINITE", "d");
      equal([error.details.position, error.details.got], [17, "inf"], "details");
      await rejects(api, engine.corpus({ ...D, data, validateFinite: true }), "ERR_NON_FINITE", "documents");
      // Where the documents are on a device, they were checked when they were uploaded, or nobody knows.
      const [unknown, checked] = [await engine.corpus({ ...D, data }), await engine.corpus({ ...D, validateFinite: true })];
      await rejects(api, engine.maxsim(Q, unknown, { validateFinite: true }), "ERR_VALUE", "validateFinite");
      equal((await engine.maxsim(Q, checked, { validateFinite: true })).shape, [2, 5], "shape");
      await rejects(api, engine.maxsim({ ...Q, data: data.slice(0, 24) }, checked, { validateFinite: true }), "ERR_NON_FINITE", "q");
    },
  },
  {
    name: "quantised documents that should be normalised or stored as something else, or that cannot be quantised",
    async run({ api, engine }) {
      const quantised = { data: BYTES, shape: D.shape, scales: 1 };
      await rejects(api, engine.corpus(quantised), "ERR_DTYPE", "documents");
      await rejects(api, engine.corpus({ ...quantised, normalize: false, storage: "fp8" }), "ERR_DTYPE", "documents");
      const data = D.data.slice();
      data[17] = NaN;
      for (const storage of ["int8", "fp8"]) {
        const error = await rejects(api, engine.corpus({ ...D, data, storage }), "ERR_NON_FINITE", "documents");
        equal(error.details.position, 17, "position");
      }
    },
  },
  {
    name: "memory that others can change or take away",
    async run({ api, engine }) {
      const detached = new Float32Array(60);
      structuredClone(detached, { transfer: [detached.buffer] });
      await rejects(api, engine.maxsim(Q, { ...D, data: detached }), "ERR_VALUE", "d.data");
      if (typeof SharedArrayBuffer === "undefined") return;
      const shared = (length) => new SharedArrayBuffer(length * 4);
      await rejects(api, engine.maxsim(Q, { ...D, data: new Float32Array(shared(60)) }), "ERR_VALUE", "d.data");
      await rejects(api, engine.maxsim(Q, { ...PACKED, offsets: new Uint32Array(shared(3)) }), "ERR_VALUE", "d.offsets");
      await rejects(api, engine.maxsim(Q, { ...D, mask: new Uint8Array(shared(15)) }), "ERR_VALUE", "d.mask");
    },
  },
  {
    name: "errors are values of their own",
    async run({ api }) {
      const error = new api.MaxSimError("ERR_VALUE", "x: expected y, got z", { argument: "x" });
      ok(error instanceof Error && error.stack.includes("MaxSimError"), "stack");
      equal([error.code, error.message, error.details], ["ERR_VALUE", "x: expected y, got z", { argument: "x" }], "fields");
      ok((await rejection(Promise.reject(error))) === error, "identity");
    },
  },
];
