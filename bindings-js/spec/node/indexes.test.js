// Indexes on disk, which only Node has.
import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import * as api from "@maxsim/node";
import { rejection, rejects, vectors } from "../cases/support.js";

const DIM = 16;
const COUNT = 300;
const TOKENS = 4;
const data = vectors(5, COUNT * TOKENS * DIM);
/** Documents `first` to `end`, as a batch. */
const documents = (first, end) => ({ data: data.slice(first * TOKENS * DIM, end * TOKENS * DIM), shape: [end - first, TOKENS, DIM] });
const query = (document) => data.slice(document * TOKENS * DIM, (document + 1) * TOKENS * DIM);

let directory, engine, paths = 0;
const path = () => join(directory, `index-${paths++}`);

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "maxsim-index-"));
  engine = await api.createEngine({ backend: "cpu", silent: true });
});
after(async () => {
  await engine.dispose();
  await rm(directory, { recursive: true });
});

function* batches({ size = 32, ids, metadata, end = COUNT } = {}) {
  for (let first = 0; first < end; first += size) {
    const last = Math.min(first + size, end);
    const names = Array.from({ length: last - first }, (_, i) => first + i);
    yield { documents: documents(first, last), ids: ids && names.map(ids), metadata: metadata && names.map(metadata) };
  }
}

const build = (options) => engine.buildIndex({ path: path(), documents: () => batches(), centroids: 32, ...options });

describe("indexes", () => {
  test("an index is built, searched and opened again", async () => {
    const at = path();
    const heard = [];
    const index = await build({
      path: at,
      documents: async function* () { yield* batches({ metadata: (i) => ({ year: 1900 + i, even: i % 2 === 0, name: `no ${i}`, big: BigInt(i) }) }); },
      onProgress: (progress) => heard.push(progress),
    });
    const info = index.info();
    assert.deepEqual(
      [info.documents, info.tokens, info.dim, info.nbits, info.centroids, info.ids, info.deleted],
      [COUNT, COUNT * TOKENS, DIM, 4, 32, "number", 0],
    );
    assert.deepEqual(info.columns, [
      { name: "year", type: "float" }, { name: "even", type: "boolean" }, { name: "name", type: "text" }, { name: "big", type: "integer" },
    ]);
    assert.deepEqual([...new Set(heard.map(({ phase }) => phase))], ["sampling", "training", "encoding"]);
    assert.deepEqual(heard.at(-1), { phase: "encoding", documents: COUNT, total: COUNT });
    for (const opened of [index, await engine.openIndex(at)]) {
      const both = { data: Float32Array.from([...query(17), ...query(200)]), shape: [2, TOKENS, DIM] };
      const [first, second] = await opened.search(both, { topK: 3, explain: true });
      assert.deepEqual([first.length, first[0].id, second[0].id], [3, 17n, 200n]);
      assert.ok(first[0].score > first[1].score);
      assert.deepEqual([...first[0].winners], [0, 1, 2, 3]);
      // One query is a list of one.
      const exact = await opened.search(query(17), { topK: 1, exact: true });
      assert.deepEqual([exact.length, exact[0].length, exact[0][0].id, exact[0][0].winners], [1, 1, 17n, undefined]);
      const found = await opened.search(query(17), { topK: 300, filter: "year >= ? AND even = TRUE AND name LIKE 'NO 2%'", parameters: [2000] });
      assert.deepEqual(found[0].map(({ id }) => Number(id)).sort((a, b) => a - b), Array.from({ length: 50 }, (_, i) => 200 + 2 * i));
      const some = await opened.search(query(17), { topK: 300, ids: [5, 6n, 999], filter: "big < ?", parameters: [6n] });
      assert.deepEqual(some[0].map(({ id }) => id), [5n]);
      assert.deepEqual(await opened.metadata(7), { year: 1907, even: false, name: "no 7", big: 7n });
      assert.equal(await opened.metadata(1000n), undefined);
      await opened.verify();
      await opened.dispose();
    }
  });

  test("documents are added, replaced, deleted, and compacted away", async () => {
    const at = path();
    const index = await build({ path: at, documents: () => batches({ end: 200 }) });
    const reader = await engine.openIndex(at);
    assert.equal(await index.add({ documents: documents(200, 210) }), 0);
    assert.equal((await index.search(query(205), { topK: 1 }))[0][0].id, 205n);
    await rejects(api, index.add({ documents: documents(210, 212), ids: [300, 5] }), "ERR_INDEX", "ids");
    assert.equal(index.info().documents, 210);
    assert.equal(await index.add({ documents: documents(210, 212), ids: [300, 5] }, { replace: true }), 1);
    assert.equal((await index.search(query(211), { topK: 1 }))[0][0].id, 5n);
    assert.equal(await index.delete({ ids: [0, 1n, 12345] }), 2);
    assert.deepEqual([index.info().documents, index.info().deleted], [209, 3]);
    // A reader sees it when it wants to.
    assert.equal(reader.info().documents, 200);
    await reader.refresh();
    assert.equal(reader.info().documents, 209);
    await rejects(api, reader.delete({ ids: [2] }), "ERR_LOCKED");
    await index.compact();
    assert.deepEqual([index.info().documents, index.info().deleted], [209, 0]);
    await index.verify();
    assert.equal((await reader.search(query(17), { topK: 1 }))[0][0].id, 17n);
    await index.dispose();
    assert.equal(await reader.delete({ ids: [2] }), 1);
    await rejects(api, index.search(query(1), { topK: 1 }), "ERR_DISPOSED");
    await reader.dispose();
  });

  test("ids may be texts, and filters delete", async () => {
    const index = await build({ ids: "text", documents: () => batches({ ids: (i) => `doc-${i}`, metadata: (i) => (i % 3 === 0 ? { third: true } : {}) }) });
    assert.equal((await index.search(query(33), { topK: 1 }))[0][0].id, "doc-33");
    assert.equal(await index.delete({ filter: "third = ?", parameters: [true] }), 100);
    assert.notEqual((await index.search(query(33), { topK: 1 }))[0][0].id, "doc-33");
    await rejects(api, index.add({ documents: documents(0, 1) }), "ERR_VALUE", "ids");
    await rejects(api, index.add({ documents: documents(0, 1), ids: [1] }), "ERR_INDEX", "ids");
    await rejects(api, index.add({ documents: documents(0, 1), ids: ["x"], metadata: [{ third: 3 }] }), "ERR_INDEX", "metadata");
    await index.dispose();
  });

  test("a build that ended early is gone on with", async () => {
    const at = path();
    const failing = () => (function* () { for (const batch of batches()) yield batch; })();
    let calls = 0;
    const error = await rejection(build({
      path: at,
      documents: function* () {
        calls++;
        for (const batch of failing()) {
          if (calls === 2 && batch.documents.data[0] === data[160 * TOKENS * DIM]) throw new Error("the network is gone");
          yield batch;
        }
      },
    }));
    assert.equal(error.message, "the network is gone");
    await rejects(api, engine.openIndex(at), "ERR_FORMAT");
    const phases = new Set();
    const index = await build({ path: at, onProgress: ({ phase }) => phases.add(phase) });
    assert.deepEqual([...phases], ["encoding"], "it was trained before");
    assert.equal(index.info().documents, COUNT);
    await index.verify();
    await index.dispose();
    await rejects(api, build({ path: at }), "ERR_VALUE", "path");
    await (await build({ path: at, replace: true, documents: () => batches({ end: 64 }) })).dispose();
  });

  test("a signal ends a build", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const error = await rejection(build({
      signal: controller.signal,
      onProgress: ({ phase }) => phase === "encoding" && controller.abort(reason),
    }));
    assert.equal(error, reason);
  });

  test("what cannot be is refused by name", async () => {
    const index = await build();
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
    await rejects(api, build({ nbits: 3 }), "ERR_VALUE", "nbits");
    await rejects(api, build({ path: undefined }), "ERR_VALUE", "path");
    await rejects(api, build({ documents: () => [] }), "ERR_VALUE", "documents");
    await rejects(api, engine.openIndex(directory), "ERR_FORMAT");
    await index.dispose();
  });

  test("damage is noticed", async () => {
    const at = path();
    await (await build({ path: at })).dispose();
    const segment = (await readdir(at)).find((name) => name.startsWith("segment"));
    await writeFile(join(at, segment), "nonsense");
    await rejects(api, engine.openIndex(at), "ERR_CORRUPT");
    await rm(join(at, segment));
    await rejects(api, engine.openIndex(at), "ERR_CORRUPT");
  });
});
