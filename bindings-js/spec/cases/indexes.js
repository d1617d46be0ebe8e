// PLAID indexes. `context.files` keeps them: `path()` is a new place, as `buildIndex` and `openIndex` take it; `names(path)`,
// `read(path, name)`, `write(path, name, bytes)` and `remove(path, name)` are about the files there.
import { equal, ok, rejection, rejects, vectors } from "./support.js";

const DIM = 16;
const COUNT = 300;
const TOKENS = 4;
const data = vectors(5, COUNT * TOKENS * DIM);
/** Documents `first` to `end`, as a batch. */
const documents = (first, end) => ({ data: data.slice(first * TOKENS * DIM, end * TOKENS * DIM), shape: [end - first, TOKENS, DIM] });
const query = (document) => data.slice(document * TOKENS * DIM, (document + 1) * TOKENS * DIM);

function* batches({ size = 32, ids, metadata, end = COUNT } = {}) {
  for (let first = 0; first < end; first += size) {
    const last = Math.min(first + size, end);
    const names = Array.from({ length: last - first }, (_, i) => first + i);
    yield { documents: documents(first, last), ids: ids && names.map(ids), metadata: metadata && names.map(metadata) };
  }
}

const build = ({ engine, files }, options) =>
  engine.buildIndex({ path: files.path(), documents: () => batches(), centroids: 32, ...options });

/** The best document. */
const first = async (index, q) => (await index.search(q, { topK: 1 }))[0][0].id;

export const indexes = [
  {
    name: "an index is built, searched and opened again",
    async run(context) {
      const at = context.files.path();
      const heard = [];
      const index = await build(context, {
        path: at,
        documents: async function* () { yield* batches({ metadata: (i) => ({ year: 1900 + i, even: i % 2 === 0, name: `no ${i}`, big: BigInt(i) }) }); },
        onProgress: (progress) => heard.push(progress),
      });
      const info = index.info();
      equal(
        [info.documents, info.tokens, info.dim, info.nbits, info.centroids, info.ids, info.deleted, info.segments],
        [COUNT, COUNT * TOKENS, DIM, 4, 32, "number", 0, 1], "facts",
      );
      equal(info.columns, [
        { name: "year", type: "float" }, { name: "even", type: "boolean" }, { name: "name", type: "text" }, { name: "big", type: "integer" },
      ], "columns");
      equal([...new Set(heard.map(({ phase }) => phase))], ["sampling", "training", "encoding"], "phases");
      equal(heard.at(-1), { phase: "encoding", documents: COUNT, total: COUNT }, "progress");
      const again = await context.engine.openIndex(at);
      equal(again.info(), info, "facts when opened");
      const packed = await context.engine.openIndex(await index.pack());
      const both = { data: Float32Array.from([...query(17), ...query(200)]), shape: [2, TOKENS, DIM] };
      const expected = await index.search(both, { topK: 20, explain: true });
      for (const opened of [index, again, packed]) {
        const hits = await opened.search(both, { topK: 20, explain: true });
        equal(hits, expected, "hits, to the bit");
        const [of17, of200] = hits;
        equal([of17.length, of17[0].id, of200[0].id], [20, 17n, 200n], "hits");
        ok(of17[0].score > of17[1].score, "best first");
        equal([...of17[0].winners], [0, 1, 2, 3], "winners");
        // One query is a list of one.
        const exact = await opened.search(query(17), { topK: 1, exact: true });
        equal([exact.length, exact[0].length, exact[0][0].id, exact[0][0].winners], [1, 1, 17n, undefined], "one query");
        const found = await opened.search(query(17), { topK: 300, filter: "year >= ? AND even = TRUE AND name LIKE 'NO 2%'", parameters: [2000] });
        equal(found[0].map(({ id }) => Number(id)).sort((a, b) => a - b), Array.from({ length: 50 }, (_, i) => 200 + 2 * i), "filtered");
        const some = await opened.search(query(17), { topK: 300, ids: [5, 6n, 999], filter: "big < ?", parameters: [6n] });
        equal(some[0].map(({ id }) => id), [5n], "chosen");
        equal(await opened.metadata(7), { year: 1907, even: false, name: "no 7", big: 7n }, "metadata");
        equal(await opened.metadata(1000n), undefined, "no metadata");
        await opened.verify();
        await opened.dispose();
      }
    },
  },
  {
    name: "few candidates are approximate, all of them are not",
    async run(context) {
      const index = await build(context);
      const exact = await index.search(query(40), { topK: 10, exact: true });
      // As many documents as there are: nothing is cut.
      equal(await index.search(query(40), { topK: 10 }), exact, "the default of a small index");
      const rough = await index.search(query(40), { topK: 10, nIvfProbe: 2, nFullScores: 64 });
      equal(rough[0][0], exact[0][0], "the best document");
      const wide = await index.search(query(40), { topK: 10, nIvfProbe: 32, nFullScores: 4 * COUNT, precision: "exact" });
      equal(wide, exact, "with every centroid probed");
      await index.dispose();
    },
  },
  {
    name: "documents are added, replaced, deleted, and compacted away",
    async run(context) {
      const { api, engine } = context;
      const at = context.files.path();
      const index = await build(context, { path: at, documents: () => batches({ end: 200 }) });
      const reader = await engine.openIndex(at);
      equal(await index.add({ documents: documents(200, 210) }), 0, "replaced");
      equal(await first(index, query(205)), 205n, "an added document");
      await rejects(api, index.add({ documents: documents(210, 212), ids: [300, 5] }), "ERR_INDEX", "ids");
      equal(index.info().documents, 210, "documents");
      equal(await index.add({ documents: documents(210, 212), ids: [300, 5] }, { replace: true }), 1, "replaced");
      equal(await first(index, query(211)), 5n, "a replaced document");
      equal(await index.delete({ ids: [0, 1n, 12345] }), 2, "deleted");
      equal([index.info().documents, index.info().deleted], [209, 3], "facts");
      // A reader sees it when it wants to.
      equal(reader.info().documents, 200, "documents of a reader");
      await reader.refresh();
      equal(reader.info(), index.info(), "facts of a reader");
      await rejects(api, reader.delete({ ids: [2] }), "ERR_LOCKED");
      await index.compact();
      equal([index.info().documents, index.info().deleted], [209, 0], "compacted");
      await index.verify();
      equal(await first(reader, query(17)), 17n, "what a reader has open stays");
      await index.dispose();
      equal(await reader.delete({ ids: [2] }), 1, "deleted by the next writer");
      equal(reader.info().documents, 208, "documents");
      await rejects(api, index.search(query(1), { topK: 1 }), "ERR_DISPOSED");
      await reader.dispose();
      const last = await engine.openIndex(at);
      equal([last.info().documents, await first(last, query(211))], [208, 5n], "opened again");
      await last.verify();
      await last.dispose();
    },
  },
  {
    name: "changes of one index at the same time are made one after the other",
    async run(context) {
      const index = await build(context, { documents: () => batches({ end: 100 }) });
      const hits = await Promise.all([
        index.add({ documents: documents(100, 110) }), index.delete({ ids: [3] }), index.add({ documents: documents(110, 120) }),
        first(index, query(50)), index.compact(),
      ]);
      equal([hits[0], hits[1], hits[3]], [0, 1, 50n], "results");
      equal([index.info().documents, await first(index, query(115))], [119, 115n], "documents");
      await index.verify();
      await index.dispose();
    },
  },
  {
    name: "ids may be texts, and filters delete",
    async run(context) {
      const { api } = context;
      const index = await build(context, { ids: "text", documents: () => batches({ ids: (i) => `doc-${i}`, metadata: (i) => (i % 3 === 0 ? { third: true } : {}) }) });
      equal(await first(index, query(33)), "doc-33", "id");
      equal(await index.delete({ filter: "third = ?", parameters: [true] }), 100, "deleted");
      ok((await first(index, query(33))) !== "doc-33", "it is gone");
      await rejects(api, index.add({ documents: documents(0, 1) }), "ERR_VALUE", "ids");
      await rejects(api, index.add({ documents: documents(0, 1), ids: [1] }), "ERR_INDEX", "ids");
      await rejects(api, index.add({ documents: documents(0, 1), ids: ["x"], metadata: [{ third: 3 }] }), "ERR_INDEX", "metadata");
      await index.dispose();
    },
  },
  {
    name: "a build that ended early is gone on with",
    async run(context) {
      const { api, engine } = context;
      const at = context.files.path();
      let calls = 0;
      const error = await rejection(build(context, {
        path: at,
        documents: function* () {
          calls++;
          for (const batch of batches()) {
            if (calls === 2 && batch.documents.data[0] === data[160 * TOKENS * DIM]) throw new Error("the network is gone");
            yield batch;
          }
        },
      }));
      equal(error.message, "the network is gone", "reason");
      const missing = await rejects(api, engine.openIndex(at), "ERR_FORMAT");
      ok(missing.message.includes("not finished"), missing.message);
      const phases = new Set();
      const index = await build(context, { path: at, onProgress: ({ phase }) => phases.add(phase) });
      // It was trained before.
      equal([...phases], ["encoding"], "phases");
      equal(index.info().documents, COUNT, "documents");
      await index.verify();
      await rejects(api, build(context, { path: at }), "ERR_VALUE", "path");
      const smaller = await build(context, { path: at, replace: true, documents: () => batches({ end: 64 }) });
      equal([smaller.info().documents, await first(index, query(200))], [64, 200n], "both");
      await index.refresh();
      equal(index.info().documents, 64, "the replacement");
      await smaller.dispose();
      await index.dispose();
      const names = await context.files.names(at);
      equal(names.filter((name) => /^(segment|building)/.test(name)).length, 1, "segments left");
    },
  },
  {
    name: "a signal ends a build",
    async run(context) {
      const controller = new AbortController();
      const reason = new Error("enough");
      const error = await rejection(build(context, {
        signal: controller.signal,
        onProgress: ({ phase }) => phase === "encoding" && controller.abort(reason),
      }));
      ok(error === reason, "the reason given");
      const stopped = await rejection(context.engine.openIndex(context.files.path(), { signal: controller.signal }));
      ok(stopped === reason, "opening, too");
    },
  },
  {
    name: "what cannot be is refused by name",
    async run(context) {
      const { api, engine } = context;
      const index = await build(context);
      await rejects(api, index.search(query(0)), "ERR_VALUE", "topK");
      await rejects(api, index.search(query(0), { topK: 0 }), "ERR_VALUE", "topK");
      await rejects(api, index.search(query(0), { topK: 1, nIvfProbe: 0 }), "ERR_VALUE", "nIvfProbe");
      await rejects(api, index.search({ data: new Float32Array(8), dim: 8 }, { topK: 1 }), "ERR_SHAPE", "query");
      await rejects(api, index.search(query(0), { topK: 1, filter: "year >" }), "ERR_VALUE", "filter");
      await rejects(api, index.search(query(0), { topK: 1, filter: "nothing = 1" }), "ERR_VALUE", "filter");
      await rejects(api, index.search(query(0), { topK: 1, ids: [1.5] }), "ERR_INDEX", "ids");
      await rejects(api, index.search(query(0), { topK: 1, ids: [-1n] }), "ERR_INDEX", "ids");
      await rejects(api, index.search(query(0), { topK: 1, where: "x" }), "ERR_VALUE", "where");
      await rejects(api, index.delete({}), "ERR_VALUE", "which");
      await rejects(api, index.add({ documents: { data: new Float32Array(16), shape: [1, 2, 8] } }), "ERR_SHAPE", "documents");
      await rejects(api, build(context, { nbits: 3 }), "ERR_VALUE", "nbits");
      await rejects(api, build(context, { path: undefined }), "ERR_VALUE", "path");
      await rejects(api, build(context, { path: 7 }), "ERR_VALUE", "path");
      await rejects(api, build(context, { documents: () => [] }), "ERR_VALUE", "documents");
      await rejects(api, engine.openIndex(context.files.path()), "ERR_FORMAT");
      await rejects(api, engine.openIndex(), "ERR_VALUE", "source");
      await rejects(api, engine.openIndex({}), "ERR_VALUE", "source");
      await rejects(api, engine.openIndex(new Uint8Array(8), { lazily: true }), "ERR_VALUE", "lazily");
      await index.dispose();
    },
  },
  {
    name: "damage to files is noticed",
    async run(context) {
      const { api, engine, files } = context;
      const at = files.path();
      await (await build(context, { path: at })).dispose();
      const segment = (await files.names(at)).find((name) => name.startsWith("segment"));
      const bytes = await files.read(at, segment);
      for (const damage of [
        new TextEncoder().encode("nonsense"), bytes.slice(0, bytes.length - 64), bytes.slice(0, 100),
        bytes.map((byte, i) => (i === bytes.length >> 1 ? byte ^ 4 : byte)),
      ]) {
        await files.write(at, segment, damage);
        const index = await engine.openIndex(at).catch((error) => error);
        // Residuals are compared when they are all read anyway, or when `verify` is asked for.
        const error = index instanceof Error ? index : await rejection(index.verify());
        equal([error.name, error.code], ["MaxSimError", "ERR_CORRUPT"], error.message);
        if (index !== error) await index.dispose();
      }
      await files.remove(at, segment);
      await rejects(api, engine.openIndex(at), "ERR_CORRUPT");
      await files.write(at, segment, bytes);
      await (await engine.openIndex(at)).dispose();
    },
  },
  {
    name: "bytes that are no index, a newer one or a damaged one say which",
    async run(context) {
      const { api, engine } = context;
      const index = await build(context);
      const bytes = await index.pack();
      await index.dispose();
      const opened = (change) => {
        const copy = bytes.slice();
        return engine.openIndex(change(copy) ?? copy);
      };
      await rejects(api, opened(() => new TextEncoder().encode("<!doctype html>".repeat(9))), "ERR_FORMAT");
      await rejects(api, opened((copy) => void (copy[8] = 2)), "ERR_VERSION");
      await rejects(api, opened(() => new Uint8Array(0)), "ERR_CORRUPT");
      for (const end of [10, 100, bytes.length >> 1, bytes.length - 1]) {
        await rejects(api, opened((copy) => copy.slice(0, end)), "ERR_CORRUPT");
      }
      for (let at = 16; at < bytes.length; at = at * 2 + 5) await rejects(api, opened((copy) => void (copy[at] ^= 16)), "ERR_CORRUPT");
      await (await opened(() => undefined)).dispose();
    },
  },
  {
    name: "an index remembers what encoded its documents, and refuses vectors of another encoder",
    async run(context) {
      const { api, engine } = context;
      const own = await api.createStaticEncoder();
      const { name, fingerprint } = own;
      ok(typeof fingerprint === "bigint" && fingerprint > 0n && fingerprint < 2n ** 64n, "fingerprint");
      const at = context.files.path();
      const index = await build(context, { path: at, encoder: own });
      equal(index.info().encoder, { name, fingerprint }, "of a build");
      const [again, packed] = [await engine.openIndex(at), await engine.openIndex(await index.pack())];
      const other = { name: "other", location: "models/other", fingerprint: fingerprint ^ 1n };
      const message = new RegExp(`^encoder: expected ${name} \\(fingerprint [0-9a-f]{16}\\), which encoded .*, got other of models/other`);
      for (const opened of [index, again, packed]) {
        equal(opened.info().encoder, { name, fingerprint }, "when opened");
        for (const encoder of [undefined, own, { name: "by another name", fingerprint }]) {
          equal((await opened.search(query(9), { topK: 1, encoder }))[0][0].id, 9n, "hit");
        }
        const error = await rejects(api, opened.search(query(9), { topK: 1, encoder: other }), "ERR_VALUE", "encoder");
        ok(message.test(error.message), error.message);
      }
      await rejects(api, index.add({ documents: documents(0, 1), ids: [COUNT] }, { encoder: other }), "ERR_VALUE", "encoder");
      await index.add({ documents: documents(0, 1), ids: [COUNT] }, { encoder: own });
      equal([index.info().documents, index.info().encoder], [COUNT + 1, { name, fingerprint }], "added");
      for (const opened of [index, again, packed]) await opened.dispose();
      const elsewhere = await build(context, { encoder: other });
      const kept = elsewhere.info().encoder;
      equal([kept.name, kept.location, kept.fingerprint], [other.name, other.location, other.fingerprint], "with a location");
      await elsewhere.dispose();
      const unknown = await build(context);
      equal([unknown.info().encoder, (await unknown.search(query(9), { topK: 1, encoder: own }))[0][0].id], [undefined, 9n], "not known");
      for (const [encoder, argument] of [
        ["static", "encoder"], [{ fingerprint }, "encoder"], [{ name, fingerprint, location: 1 }, "encoder"],
        [{ name }, "encoder.fingerprint"], [{ name, fingerprint: 1 }, "encoder.fingerprint"], [{ name, fingerprint: -1n }, "encoder.fingerprint"],
        [{ name, fingerprint: 2n ** 64n }, "encoder.fingerprint"],
      ]) {
        await rejects(api, unknown.search(query(9), { topK: 1, encoder }), "ERR_VALUE", argument);
        await rejects(api, build(context, { encoder }), "ERR_VALUE", argument);
      }
      await unknown.dispose();
    },
  },
  {
    name: "an index from bytes can be changed as long as it is open",
    async run({ engine, files, ...context }) {
      const index = await build({ engine, files, ...context }, { documents: () => batches({ end: 50 }) });
      const bytes = await index.pack();
      await index.dispose();
      const [one, other] = [await engine.openIndex(bytes), await engine.openIndex(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength))];
      await one.add({ documents: documents(50, 60) });
      await one.delete({ ids: [1] });
      equal([one.info().documents, await first(one, query(55)), other.info().documents], [59, 55n, 50], "documents");
      const again = await engine.openIndex(await one.pack());
      equal(await again.search(query(55), { topK: 5 }), await one.search(query(55), { topK: 5 }), "packed again");
      for (const opened of [one, other, again]) await opened.dispose();
    },
  },
];
