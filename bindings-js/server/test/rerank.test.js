// The reranking endpoints, against the engine and the encoder themselves, and with a Cohere client.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { CohereClient, CohereClientV2, CohereError } from "cohere-ai";
import { createEngine, createStaticEncoder } from "@maxsim/node";
import { get, post, serve } from "../testing/support.mjs";

const QUERY = "ships under water";
const TEXTS = ["a recipe for bread and butter", "the submarine dived below the sea", "taxes are due in april", ""];
let url, expected;

before(async () => {
  ({ url } = await serve());
  const [engine, encoder] = [await createEngine({ silent: true }), await createStaticEncoder()];
  const q = await encoder.encodeQuery(QUERY);
  const { vectors, offsets, dim } = await encoder.encodeDocuments(TEXTS);
  const { scores } = await engine.maxsim({ data: q.vectors, dim }, { data: vectors, dim, offsets });
  let best = 0;
  for (let s = 0; s < q.vectors.length; s += dim) best += Math.hypot(...q.vectors.subarray(s, s + dim));
  expected = { scores: [...scores], relevance: [...scores].map((x) => x / best), tokens: (q.vectors.length + vectors.length) / dim };
  await engine.dispose();
});

function near(a, b) {
  assert.ok(Math.abs(a - b) <= 1e-6, `${a} and ${b}`);
}

for (const version of ["1", "2"]) {
  test(`/v${version}/rerank answers as Cohere and Jina do`, async () => {
    const { status, json, headers } = await post(url, `/v${version}/rerank`, { model: "rerank-v3.5", query: QUERY, documents: TEXTS });
    assert.equal(status, 200);
    assert.equal(json.model, "static-en-128");
    assert.equal(json.id, headers["x-request-id"]);
    assert.deepEqual(json.meta, { api_version: { version }, tokens: { input_tokens: expected.tokens } });
    assert.deepEqual(json.usage, { total_tokens: expected.tokens });
    assert.equal(json.results[0].index, 1);
    assert.deepEqual(json.results.map(({ index }) => index).sort(), [0, 1, 2, 3]);
    json.results.forEach(({ index, relevance_score }, i) => {
      near(relevance_score, expected.relevance[index]);
      assert.ok(i === 0 || relevance_score <= json.results[i - 1].relevance_score, "best first");
    });
    assert.ok(json.results.every((result) => !("document" in result)));
  });
}

test("top_n, return_documents, rank_fields, max_tokens_per_doc", async () => {
  const documents = [TEXTS[3], { text: TEXTS[1], id: 7 }, TEXTS[2]];
  const top = await post(url, "/v1/rerank", { query: QUERY, documents, top_n: 2, return_documents: true });
  assert.deepEqual(top.json.results.map(({ document }) => document), [{ text: TEXTS[1], id: 7 }, { text: TEXTS[2] }]);
  assert.equal((await post(url, "/v1/rerank", { query: QUERY, documents, top_n: 99 })).json.results.length, 3);

  const fields = [{ title: TEXTS[1], body: "x" }, { title: "x", body: TEXTS[2] }];
  const ranked = await post(url, "/v1/rerank", { query: QUERY, documents: fields, rank_fields: ["title", "body"] });
  assert.equal(ranked.json.results[0].index, 0);

  // One token of "the submarine …" is "the", which says nothing.
  const cut = await post(url, "/v2/rerank", { query: QUERY, documents: TEXTS, max_tokens_per_doc: 1 });
  const score = (response, i) => response.json.results.find(({ index }) => index === i).relevance_score;
  assert.ok(score(cut, 1) < expected.relevance[1] / 2);
  near(score(cut, 1), score(await post(url, "/v2/rerank", { query: QUERY, documents: ["the"] }), 0));
});

test("/rerank answers as text-embeddings-inference does", async () => {
  const raw = await post(url, "/rerank", { query: QUERY, texts: TEXTS, raw_scores: true, return_text: true, truncate: true });
  assert.equal(raw.status, 200);
  for (const { index, score, text } of raw.json) {
    near(score, expected.scores[index]);
    assert.equal(text, TEXTS[index]);
  }
  const { json } = await post(url, "/rerank", { query: QUERY, texts: TEXTS });
  assert.deepEqual(Object.keys(json[0]), ["index", "score"]);
  for (const { index, score } of json) near(score, expected.relevance[index]);

  const info = (await get(url, "/info")).json;
  assert.equal(info.model_id, "static-en-128");
  const bad = await post(url, "/rerank", { query: QUERY, texts: ["a", 3] });
  assert.equal(bad.status, 400);
  assert.equal(bad.json.field, "texts[1]");
  assert.deepEqual([bad.json.error, bad.json.error_type], [bad.json.message, "Validation"]);
});

test("a Cohere client works, and sees errors as Cohere's", async () => {
  const v2 = await new CohereClientV2({ token: "any", environment: url }).rerank({ model: "rerank-v3.5", query: QUERY, documents: TEXTS, topN: 2 });
  assert.equal(v2.results.length, 2);
  assert.equal(v2.results[0].index, 1);
  near(v2.results[0].relevanceScore, expected.relevance[1]);

  const cohere = new CohereClient({ token: "any", environment: url });
  const v1 = await cohere.rerank({ query: QUERY, documents: TEXTS.map((text) => ({ text })), returnDocuments: true });
  assert.equal(v1.results[0].document.text, TEXTS[1]);

  await assert.rejects(cohere.rerank({ query: "", documents: TEXTS }), (error) => {
    assert.ok(error instanceof CohereError);
    assert.equal(error.statusCode, 400);
    assert.equal(error.body.field, "query");
    return true;
  });
});
