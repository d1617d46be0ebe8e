// Documents that an engine keeps.
import { best, close, cross, equal, ok, rejects, scores, sequences, toF16, fromF16, vectors } from "./support.js";

const DIM = 24;
const OFFSETS = new Uint32Array([0, 3, 8, 8, 15, 20]);
const DATA = vectors(21, 20 * DIM);
const QUERY = vectors(22, 4 * DIM);
const reference = (values, extra) => sequences({ values, dim: DIM, ...extra });
const query = reference(QUERY, { shape: [4, DIM] });
const documents = reference(DATA, { offsets: OFFSETS });

export const corpora = [
  {
    name: "a search of packed documents with a bare query",
    async run({ engine }) {
      const docs = await engine.corpus({ data: DATA, offsets: OFFSETS, dim: DIM });
      equal([docs.count, docs.dim, docs.dtype, docs.normalized], [5, DIM, "f32", true], "facts");
      ok(docs.bytes >= DATA.byteLength, "bytes");
      const all = scores(cross(query, documents), true);
      const { scores: found, indices, argmax, shape, argmaxShape } = await docs.search(QUERY, { topK: 3, explain: true });
      const order = best(all.scores, 3);
      equal([shape, argmaxShape, [...indices]], [[3], [3, 4], order], "shapes and indices");
      close(found, order.map((j) => all.scores[j]));
      equal([...argmax], order.flatMap((j) => all.argmax.slice(j * 4, j * 4 + 4)), "argmax");
      equal((await docs.search(QUERY, { topK: 3, chunk: 2 })).indices, indices, "indices in chunks");
      const scored = await docs.score(QUERY);
      equal(scored.shape, [5], "shape");
      close(scored.scores, all.scores);
      await docs.dispose();
    },
  },
  {
    name: "several queries, padded documents, masks and lengths",
    async run({ engine }) {
      const data = DATA.slice(0, 18 * DIM);
      const shape = [6, 3, DIM];
      const lengths = [3, 2, 0, 3, 1, 3];
      const mask = Array.from({ length: 18 }, (_, i) => i % 4 !== 1);
      const docs = await engine.corpus({ data, shape, lengths, mask });
      const all = scores(
        cross(reference(QUERY, { shape: [2, 2, DIM] }), reference(data, { shape, lengths, mask })), true,
      ).scores;
      const result = await docs.search({ data: QUERY, shape: [2, 2, DIM] }, { topK: 4 });
      equal(result.shape, [2, 4], "shape");
      equal([...result.indices], [...best(all.slice(0, 6), 4), ...best(all.slice(6), 4)], "indices");
    },
  },
  {
    name: "dtype describes the data, storage what is kept",
    async run({ engine }) {
      const f16 = Uint16Array.from(DATA, toF16);
      const given = await engine.corpus({ data: f16, offsets: OFFSETS, dim: DIM, dtype: "f16", normalize: false });
      equal([given.dtype, given.normalized], ["f16", false], "facts");
      const want = scores(cross(query, reference(Float32Array.from(f16, fromF16), { offsets: OFFSETS }))).scores;
      close((await given.score(QUERY)).scores, want, 1e-4);
      const wide = await engine.corpus({ data: DATA, offsets: OFFSETS, dim: DIM, normalize: false });
      const stored = await engine.corpus({ data: DATA, offsets: OFFSETS, dim: DIM, storage: "f16", normalize: false });
      equal(stored.dtype, "f16", "dtype");
      ok(stored.bytes < wide.bytes, "f16 is smaller");
      equal((await stored.score(QUERY)).scores, (await given.score(QUERY)).scores, "scores");
    },
  },
  {
    name: "quantised documents are kept as they are",
    async run({ engine }) {
      const data = Int8Array.from(DATA, (x) => Math.round(x * 127));
      const input = { data, offsets: OFFSETS, dim: DIM, scales: 1 / 127, normalize: false };
      const docs = await engine.corpus(input);
      equal(docs.dtype, "int8", "dtype");
      equal((await docs.score(QUERY)).scores, (await engine.maxsim({ data: QUERY, dim: DIM }, withoutNormalize(input))).scores);
    },
  },
  {
    name: "a corpus takes the place of documents in every operator",
    async run({ engine }) {
      const docs = await engine.corpus({ data: DATA, offsets: OFFSETS, dim: DIM, normalize: false });
      const tokens = { data: DATA, offsets: OFFSETS, dim: DIM };
      const q = { data: QUERY, dim: DIM, offsets: [0, 1, 4] };
      equal((await engine.maxsim(QUERY, docs)).scores, (await engine.maxsim({ data: QUERY, dim: DIM }, tokens)).scores);
      equal((await engine.maxsimVarlen(q, docs)).scores, (await engine.maxsimVarlen(q, tokens)).scores);
      const pairs = [[1, 0, 1], [4, 2, 3]];
      equal((await engine.scorePairs(q, docs, ...pairs)).scores, (await engine.scorePairs(q, tokens, ...pairs)).scores);
      equal(
        (await engine.retrieve(QUERY, docs, { topK: 2 })).scores,
        (await engine.retrieve({ data: QUERY, dim: DIM }, tokens, { topK: 2 })).scores,
      );
      close((await engine.scorer().forward(QUERY, docs)).scores, scores(cross(query, documents), true).scores);
      ok((await engine.explain({ op: "maxsim", q: QUERY, d: docs })).kernel, "kernel");
    },
  },
  {
    name: "no documents, and documents without tokens",
    async run({ engine }) {
      const none = await engine.corpus({ data: new Float32Array(0), offsets: [0], dim: DIM });
      equal([none.count, (await none.search(QUERY, { topK: 3 })).shape], [0, [0]], "no documents");
      const empty = await engine.corpus({ data: new Float32Array(0), offsets: [0, 0, 0], dim: DIM });
      const { scores: found, indices } = await empty.search(QUERY, { topK: 3 });
      equal([[...found], [...indices]], [[0, 0], [0, 1]], "empty documents");
    },
  },
  {
    name: "a disposed corpus is refused, calls under way finish",
    async run({ api, engine }) {
      const docs = await engine.corpus({ data: DATA, offsets: OFFSETS, dim: DIM });
      const underWay = docs.search(QUERY, { topK: 1 });
      await docs.dispose();
      equal((await underWay).shape, [1], "shape");
      await rejects(api, docs.search(QUERY, { topK: 1 }), "ERR_DISPOSED");
      await rejects(api, docs.score(QUERY), "ERR_DISPOSED");
      await rejects(api, engine.maxsim(QUERY, docs), "ERR_DISPOSED");
      await docs.dispose();
    },
  },
  {
    name: "a disposed engine takes its corpora along",
    async run({ api, create }) {
      const engine = await create();
      const other = await create();
      const docs = await engine.corpus({ data: DATA, offsets: OFFSETS, dim: DIM });
      await rejects(api, other.maxsim(QUERY, docs), "ERR_VALUE", "d");
      const underWay = engine.corpus({ data: DATA, offsets: OFFSETS, dim: DIM });
      await engine.dispose();
      await rejects(api, underWay, "ERR_DISPOSED");
      await rejects(api, docs.search(QUERY, { topK: 1 }), "ERR_DISPOSED");
      await rejects(api, engine.maxsim({ data: QUERY, dim: DIM }, { data: DATA, dim: DIM }), "ERR_DISPOSED");
      await rejects(api, engine.corpus({ data: DATA, dim: DIM }), "ERR_DISPOSED");
      await rejects(api, engine.packPadded({ data: QUERY, dim: DIM }, { data: DATA, dim: DIM }), "ERR_DISPOSED");
      await rejects(api, engine.explain({ op: "maxsim", q: { data: QUERY, dim: DIM }, d: { data: DATA, dim: DIM } }), "ERR_DISPOSED");
      await engine.dispose();
      await other.dispose();
    },
  },
  {
    name: "Symbol.asyncDispose disposes",
    async run({ api, create }) {
      const symbol = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");
      const engine = await create();
      const docs = await engine.corpus({ data: DATA, offsets: OFFSETS, dim: DIM });
      await docs[symbol]();
      await rejects(api, docs.search(QUERY, { topK: 1 }), "ERR_DISPOSED");
      await engine[symbol]();
      await rejects(api, engine.corpus({ data: DATA, dim: DIM }), "ERR_DISPOSED");
    },
  },
];

function withoutNormalize({ normalize: _, ...tokens }) {
  return tokens;
}
