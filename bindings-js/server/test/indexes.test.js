// Indexes: texts, JSON and binary queries against the index itself, options, refresh, and what is wrong.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import { after, before, test } from "node:test";
import { createEngine, createStaticEncoder } from "@maxsim/node";
import { safetensors } from "../testing/client.mjs";
import { get, post, serve } from "../testing/support.mjs";

const TEXTS = ["a recipe for bread and butter", "the submarine dived below the sea", "taxes are due in april", "snow and ice on the mountain", "a ship sailed into the harbour"];
const BIG = 2n ** 60n;
const folder = mkdtempSync(`${os.tmpdir()}/maxsim-indexes-`);
let engine, encoder, service, url, index;

const batch = async (texts, ids, metadata) => {
  const { vectors, offsets, dim } = await encoder.encodeDocuments(texts);
  return { documents: { data: vectors, dim, offsets }, ids, metadata };
};

before(async () => {
  [engine, encoder] = [await createEngine({ silent: true }), await createStaticEncoder()];
  const documents = await batch(TEXTS, [0n, 1n, 2n, 3n, BIG], TEXTS.map((text, i) => ({ text, year: BigInt(2020 + i) })));
  index = await engine.buildIndex({ path: `${folder}/notes`, documents: () => [documents], centroids: 8 });
  const names = await batch(TEXTS, [..."abcde"]);
  await (await engine.buildIndex({ path: `${folder}/named`, documents: () => [names], ids: "text", centroids: 8 })).dispose();
  service = await serve("--indexes", `notes=${folder}/notes, named=${folder}/named`);
  ({ url } = service);
});
after(async () => {
  await engine.dispose();
  rmSync(folder, { recursive: true });
});

/** Hits as the service writes them. */
const written = (hits) => hits.map(({ id, score }) => ({ id: id <= Number.MAX_SAFE_INTEGER ? Number(id) : String(id), score }));
const rounded = (results) => results.map(({ id, score }) => ({ id, score: Math.fround(score) }));

test("texts, JSON vectors and binary vectors find what the index finds", async () => {
  const query = await encoder.encodeQuery("ships under water");
  const operand = { data: query.vectors, dim: query.dim };
  const [weighted] = await index.search(operand, { topK: 3, normalize: false });
  const text = await post(url, "/v1/indexes/notes/search", { query: "ships under water", top_k: 3 });
  assert.equal(text.status, 200, text.body);
  assert.deepEqual(rounded(text.json.results), written(weighted));
  assert.ok(text.json.results.some(({ id }) => id === 1));
  assert.match(text.headers["server-timing"], /encode;dur=.*search;dur=.*total;dur=/);

  const [plain] = await index.search(operand, { topK: 10 });
  const rows = query.tokens.map((_, t) => [...query.vectors.subarray(t * query.dim, (t + 1) * query.dim)]);
  assert.deepEqual(rounded((await post(url, "/v1/indexes/notes/search", { query: rows })).json.results), written(plain));
  const body = safetensors({ query: ["F32", [rows.length, query.dim], query.vectors] });
  assert.deepEqual(rounded((await post(url, "/v1/indexes/notes/search?top_k=2", body)).json.results), written(plain.slice(0, 2)));
});

test("filters, ids, metadata, explanations, and ids that JSON has no numbers for", async () => {
  const search = async (options, name = "notes") => (await post(url, `/v1/indexes/${name}/search`, { query: "ships under water", ...options })).json;
  const late = await search({ filter: "year >= ?", parameters: [2022], return_metadata: true });
  assert.deepEqual(late.results.map(({ id }) => id).sort(), [2, 3, String(BIG)].sort());
  const found = late.results.find(({ id }) => id === String(BIG));
  assert.deepEqual(found.metadata, { text: TEXTS[4], year: 2024 });
  assert.deepEqual((await search({ ids: [1, String(BIG), 77] })).results.map(({ id }) => id).sort(), [1, String(BIG)].sort());
  assert.deepEqual((await search({ ids: ["b"] }, "named")).results.map(({ id }) => id), ["b"]);
  const { results } = await search({ explain: true, exact: true, top_k: 1 });
  assert.equal(results[0].winners.length, 3);
});

test("searches that share a batch find what they find alone", async () => {
  const queries = ["ships", "frozen water", "money for the state", "?", "loaf", "peaks in winter"];
  const search = async (query) => rounded((await post(url, "/v1/indexes/notes/search", { query, top_k: 4 })).json.results);
  const alone = [];
  for (const query of queries) alone.push(await search(query));
  const many = Array.from({ length: 30 }, (_, i) => i % queries.length);
  assert.deepEqual(await Promise.all(many.map((i) => search(queries[i]))), many.map((i) => alone[i]));
});

test("the indexes are listed, and a refresh shows what others wrote", async () => {
  const list = async () => (await get(url, "/v1/indexes")).json.indexes;
  assert.deepEqual((await list()).map(({ name, documents, dim, ids }) => [name, documents, dim, ids]), [["notes", 5, 128, "number"], ["named", 5, 128, "text"]]);
  await index.add(await batch(["a whale is a mammal that lives in the sea"], [50n]));
  assert.equal((await list())[0].documents, 5);
  await service.refresh();
  assert.equal((await list())[0].documents, 6);
  const { json } = await post(url, "/v1/indexes/notes/search", { query: "whale", top_k: 1 });
  assert.equal(json.results[0].id, 50);
});

test("what is wrong is named", async () => {
  for (const [name, body, status, field] of [
    ["nothing", { query: "a" }, 404, "name"],
    ["notes", {}, 400, "query"],
    ["notes", { query: "" }, 400, "query"],
    ["notes", { query: [] }, 400, "query"],
    ["notes", { query: [[]] }, 400, "query[0]"],
    ["notes", { query: [[1, 2, 3]] }, 400, "query"],
    ["notes", { query: [[1e39]] }, 400, "query[0][0]"],
    ["notes", { query: "a", top_k: 0 }, 400, "top_k"],
    ["notes", { query: "a", filter: "year >" }, 400, "filter"],
    ["notes", { query: "a", filter: "nothing = 3" }, 400, "filter"],
    ["notes", { query: "a", filter: "year = ?" }, 400, "parameters"],
    ["notes", { query: "a", ids: ["x"] }, 400, "ids[0]"],
    ["notes", { query: "a", ids: [-1] }, 400, "ids[0]"],
    ["notes", { query: "a", n_ivf_probe: 0 }, 400, "n_ivf_probe"],
    ["notes", { query: "a", topK: 3 }, 400, "topK"],
    ["notes", safetensors({ query: ["F32", [1, 128], new Float32Array(128)], documents: ["F32", [1, 128], new Float32Array(128)] }), 400, "documents"],
  ]) {
    const response = await post(url, `/v1/indexes/${name}/search`, body);
    assert.deepEqual([response.status, response.json.field], [status, field], JSON.stringify([body, response.json]));
  }
  await assert.rejects(serve("--indexes", `gone=${folder}/gone`), /gone/);
  await assert.rejects(serve("--indexes", "a=x,a=y"), /--indexes: expected/);
});
