// Texts in memory: found as the engine finds them, alone and in batches, and what is wrong.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import { after, before, test } from "node:test";
import { createEngine, createStaticEncoder } from "@maxsim/node";
import { get, post, serve } from "../testing/support.mjs";

const TEXTS = ["a recipe for bread and butter", "the submarine dived below the sea", "taxes are due in april", "snow and ice on the mountain"];
const folder = mkdtempSync(`${os.tmpdir()}/maxsim-texts-`);
let engine, encoder, url;

before(async () => {
  [engine, encoder] = [await createEngine({ silent: true }), await createStaticEncoder()];
  // Lines that hold nothing are no documents.
  writeFileSync(`${folder}/lines.txt`, `${TEXTS.slice(0, 2).join("\n")}\n\n${TEXTS.slice(2).join("\r\n")}\n`);
  mkdirSync(`${folder}/docs/deep`, { recursive: true });
  writeFileSync(`${folder}/docs/a.md`, `${TEXTS[1]}\nin two lines`);
  writeFileSync(`${folder}/docs/deep/b.txt`, TEXTS[2]);
  writeFileSync(`${folder}/docs/c.json`, "{}");
  ({ url } = await serve("--texts", `lines=${folder}/lines.txt, docs=${folder}/docs`));
});
after(async () => {
  await engine.dispose();
  rmSync(folder, { recursive: true });
});

const search = (name, body) => post(url, `/v1/indexes/${name}/search`, body);
const near = (a, b) => assert.ok(Math.abs(a - b) <= 2e-3 * Math.max(1, Math.abs(b)), `${a} and ${b}`);

async function expected(text) {
  const { vectors, offsets, dim } = await encoder.encodeDocuments(TEXTS);
  const query = await encoder.encodeQuery(text);
  const { scores, indices, argmax } = await engine.retrieve(
    { data: query.vectors, dim }, { data: vectors, offsets, dim }, { topK: TEXTS.length, normalize: false, explain: true });
  return [...indices].map((id, rank) => ({ id, score: scores[rank], winners: [...argmax.subarray(rank * query.tokens.length, (rank + 1) * query.tokens.length)] }));
}

test("every text is scored, and hits say what they are", async () => {
  const wanted = await expected("ships under water");
  const { status, json } = await search("lines", { query: "ships under water", return_metadata: true, explain: true });
  assert.equal(status, 200);
  assert.deepEqual(json.results.map(({ id }) => id), wanted.map(({ id }) => id));
  json.results.forEach(({ score, winners, metadata, id }, rank) => {
    near(score, wanted[rank].score);
    assert.deepEqual(winners, wanted[rank].winners);
    assert.deepEqual(metadata, { source: `${id < 2 ? id + 1 : id + 2}`, text: TEXTS[id] });
  });
  const files = await search("docs", { query: "tax", return_metadata: true, top_k: 1 });
  assert.deepEqual(files.json.results[0].metadata, { source: "deep/b.txt", text: TEXTS[2] });
  const some = await search("lines", { query: "ships under water", ids: [0, 3, 77], top_k: 1 });
  assert.deepEqual(some.json.results.map(({ id }) => id), [wanted.find(({ id }) => id === 0 || id === 3).id]);
});

test("searches that share a batch find what they find alone", async () => {
  const queries = ["ships", "frozen water on a hill", "money for the state", "loaf"];
  const wish = { top_k: 3, explain: true };
  const alone = [];
  for (const query of queries) alone.push((await search("lines", { query, ...wish })).json.results);
  const many = Array.from({ length: 24 }, (_, i) => i % queries.length);
  const together = await Promise.all(many.map(async (i) => (await search("lines", { query: queries[i], ...wish })).json.results));
  assert.deepEqual(together, many.map((i) => alone[i]));
});

test("vectors are normalised unless told not to", async () => {
  const { vectors, dim } = await encoder.encodeQuery("submarine");
  const query = [[...vectors].map((x) => 3 * x)];
  assert.equal(query[0].length, dim);
  const [whole, plain] = [await search("lines", { query }), await search("lines", { query, normalize: false })];
  const length = Math.hypot(...query[0]);
  near(plain.json.results[0].score / whole.json.results[0].score, length);
});

test("texts are listed, and what is wrong is named", async () => {
  const { indexes } = (await get(url, "/v1/indexes")).json;
  assert.deepEqual(indexes.map(({ name, documents, dim, nbits }) => [name, documents, dim, nbits]), [["lines", 4, 128, undefined], ["docs", 2, 128, undefined]]);
  const filtered = await search("lines", { query: "ship", filter: "text = 'x'" });
  assert.deepEqual([filtered.status, filtered.json.field], [400, "filter"]);
  assert.match(filtered.json.message, /build an index/);
  await assert.rejects(serve("--texts", `gone=${folder}/gone`), /gone/);
  writeFileSync(`${folder}/empty.txt`, "\n\n");
  await assert.rejects(serve("--texts", `empty=${folder}/empty.txt`), /it holds no text/);
  await assert.rejects(serve("--texts", `a=${folder}/lines.txt`, "--indexes", "a=x"), /--texts: expected names/);
});
