// `/v1/score`: both bodies against the engine, every dtype, batches, and everything that can be wrong with vectors.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { createEngine, quantizeFp8, quantizeInt8 } from "@maxsim/node";
import { f16Vectors, safetensors } from "../testing/client.mjs";
import { post, serve } from "../testing/support.mjs";

let url, engine;
before(async () => {
  ({ url } = await serve("--body-limit", "1MiB", "--json-limit", "64k"));
  engine = await createEngine({ silent: true });
});

const floats = (count, seed = 1) => Float32Array.from({ length: count }, (_, i) => Math.sin(seed + i * i));
const rows = (data, dim) => Array.from({ length: data.length / dim }, (_, i) => [...data.subarray(i * dim, (i + 1) * dim)]);
const OFFSETS = [0, 3, 3, 8];
const i64 = (values) => ["I64", [values.length], BigInt64Array.from(values, BigInt)];

test("JSON: documents of any length, options in body or query string", async () => {
  const [q, d] = [floats(2 * 4), floats(8 * 4, 2)];
  const documents = OFFSETS.slice(1).map((end, i) => rows(d, 4).slice(OFFSETS[i], end));
  const body = { query: rows(q, 4), documents };
  const packed = { data: d, dim: 4, offsets: OFFSETS };
  const plain = await engine.maxsim({ data: q, dim: 4 }, packed);
  const { status, json } = await post(url, "/v1/score", body);
  assert.equal(status, 200);
  assert.deepEqual(json.scores.map(Math.fround), [...plain.scores]);
  assert.equal(json.scores[1], 0, "an empty document");
  const normalized = (await engine.maxsim({ data: q, dim: 4 }, packed, { normalize: true })).scores;
  assert.deepEqual((await post(url, "/v1/score", { ...body, normalize: true })).json.scores.map(Math.fround), [...normalized]);
  assert.deepEqual((await post(url, "/v1/score?normalize=true", body)).json.scores.map(Math.fround), [...normalized]);
  const top = (await post(url, "/v1/score", { ...body, top_n: 2 })).json;
  const order = [0, 1, 2].sort((a, b) => plain.scores[b] - plain.scores[a]).slice(0, 2);
  assert.deepEqual(top.results.map(({ index }) => index), order);
  assert.equal(top.scores, undefined);
});

test("binary: every dtype and layout gives the engine's bits", async () => {
  const [q, d] = [floats(2 * 8), floats(8 * 8, 2)];
  const f16 = (count, seed) => ["F16", f16Vectors(count, seed)];
  const query = ["F32", [2, 8], q];
  for (const [name, tensors, operand] of [
    ["packed f32", { documents: ["F32", [8, 8], d], offsets: i64(OFFSETS) }, { data: d, dim: 8, offsets: OFFSETS }],
    ["offsets as U32", { documents: ["F32", [8, 8], d], offsets: ["U32", [4], Uint32Array.from(OFFSETS)] }, { data: d, dim: 8, offsets: OFFSETS }],
    ["offsets as I32", { documents: ["F32", [8, 8], d], offsets: ["I32", [4], Int32Array.from(OFFSETS)] }, { data: d, dim: 8, offsets: OFFSETS }],
    ["padded f32", { documents: ["F32", [2, 4, 8], d] }, { data: d, shape: [2, 4, 8] }],
    ["padded with lengths", { documents: ["F32", [2, 4, 8], d], lengths: i64([1, 4]) }, { data: d, shape: [2, 4, 8], lengths: [1, 4] }],
    ["f16", { documents: [f16(64, 3)[0], [2, 4, 8], f16(64, 3)[1]] }, { data: f16(64, 3)[1], dtype: "f16", shape: [2, 4, 8] }],
    ["bf16", { documents: ["BF16", [2, 4, 8], f16Vectors(64, 4)] }, { data: f16Vectors(64, 4), dtype: "bf16", shape: [2, 4, 8] }],
  ]) {
    const { status, json, body } = await post(url, "/v1/score", safetensors({ query, ...tensors }));
    assert.equal(status, 200, `${name}: ${body}`);
    assert.deepEqual(json.scores.map(Math.fround), [...(await engine.maxsim({ data: q, dim: 8 }, operand)).scores], name);
  }
  for (const [dtype, quantised] of [["I8", await quantizeInt8({ data: d, dim: 8 })], ["F8_E4M3", await quantizeFp8({ data: d, dim: 8 })]]) {
    const { json, body } = await post(url, "/v1/score", safetensors({
      query, documents: [dtype, [8, 8], quantised.data], documents_scales: ["F32", [8], quantised.scales], offsets: i64(OFFSETS),
    }));
    const want = await engine.maxsim({ data: q, dim: 8 }, { data: quantised.data, dtype: quantised.dtype, scales: quantised.scales, dim: 8, offsets: OFFSETS });
    assert.deepEqual(json.scores?.map(Math.fround), [...want.scores], body);
  }
});

test("binary: data that is not aligned, in any order of entries, is read right", async () => {
  const [q, d] = [floats(2 * 4), floats(6 * 4, 2)];
  const aligned = safetensors({ documents: ["F32", [2, 3, 4], d], query: ["F32", [2, 4], q] });
  const length = Number(aligned.readBigUInt64LE(0));
  const shifted = Buffer.concat([Buffer.alloc(8), aligned.subarray(8, 8 + length), Buffer.from(" "), aligned.subarray(8 + length)]);
  shifted.writeBigUInt64LE(BigInt(length + 1));
  const want = [...(await engine.maxsim({ data: q, dim: 4 }, { data: d, shape: [2, 3, 4] })).scores];
  for (const body of [aligned, shifted]) assert.deepEqual((await post(url, "/v1/score", body)).json.scores.map(Math.fround), want);
});

test("JSON that is wrong is 400 and names the element", async () => {
  const good = { query: [[1, 2]], documents: [[[1, 2]], [[3, 4]]] };
  for (const [change, code, field] of [
    [{ query: undefined }, "ERR_VALUE", "query"],
    [{ documents: undefined }, "ERR_VALUE", "documents"],
    [{ query: [] }, "ERR_VALUE", "query"],
    [{ query: [[]] }, "ERR_SHAPE", "query[0]"],
    [{ query: "x" }, "ERR_DTYPE", "query"],
    [{ query: [1, 2] }, "ERR_DTYPE", "query[0]"],
    [{ documents: [[[1, 2]], [[3]]] }, "ERR_SHAPE", "documents[1][0]"],
    [{ documents: [[[1, 2]], [3]] }, "ERR_DTYPE", "documents[1][0]"],
    [{ documents: [[[1, 2]], [[3, "4"]]] }, "ERR_DTYPE", "documents[1][0][1]"],
    [{ documents: [[[1, 2]], [[3, null]]] }, "ERR_DTYPE", "documents[1][0][1]"],
    [{ documents: [[[1, 2], [3, 1e300]]] }, "ERR_NON_FINITE", "documents[0][1][1]"],
    [{ query: [[1e39, 0]] }, "ERR_NON_FINITE", "query[0][0]"],
    [{ query: [[1e38, 0]], documents: [[[0, 1]], [[1e38, 0]]] }, "ERR_NON_FINITE", "documents[1]"],
    [{ top_n: 0 }, "ERR_VALUE", "top_n"],
    [{ top_n: "2" }, "ERR_DTYPE", "top_n"],
    [{ normalize: 1 }, "ERR_DTYPE", "normalize"],
    [{ precision: "half" }, "ERR_VALUE", "precision"],
    [{ topN: 2 }, "ERR_VALUE", "topN"],
  ]) {
    const { status, json } = await post(url, "/v1/score", { ...good, ...change });
    assert.deepEqual([status, json.code, json.field], [400, code, field], JSON.stringify([change, json]));
    assert.ok(json.message.startsWith(`${field}: expected`), json.message);
  }
  for (const [text, field] of [["", "body"], ["{", "body"], ['{"query":[[NaN]]}', "body"], ["3", "body"], ['{"__proto__":{}}', "body"]]) {
    const { status, json } = await post(url, "/v1/score", text);
    assert.deepEqual([status, json.field], [400, field], text);
  }
  assert.equal((await post(url, "/v1/score?top_n=x", good)).json.field, "top_n");
});

test("binary that is wrong is 400 and names the entry", async () => {
  const query = ["F32", [1, 4], floats(4)];
  const documents = ["F32", [2, 1, 4], floats(8)];
  const lies = (text) => {
    const json = Buffer.from(text);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    return Buffer.concat([length, json, Buffer.alloc(16)]);
  };
  for (const [body, code, field] of [
    [Buffer.from("x"), "ERR_FORMAT", "body"],
    [Buffer.alloc(8, 0xff), "ERR_FORMAT", "body"],
    [Buffer.alloc(64), "ERR_FORMAT", "body"],
    [lies("[]"), "ERR_FORMAT", "body"],
    [lies('{"query":3}'), "ERR_FORMAT", "query"],
    [lies('{"query":{"dtype":"F32","shape":[1e30],"data_offsets":[0,16]}}'), "ERR_FORMAT", "query"],
    [lies('{"query":{"dtype":"F32","shape":[-1],"data_offsets":[0,16]}}'), "ERR_FORMAT", "query"],
    [lies('{"query":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}}'), "ERR_FORMAT", "query"],
    [lies('{"query":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}}'), "ERR_FORMAT", "query"],
    [lies('{"query":{"dtype":"constructor","shape":[4],"data_offsets":[0,16]}}'), "ERR_FORMAT", "query"],
    [safetensors({ documents }), "ERR_VALUE", "query"],
    [safetensors({ query }), "ERR_VALUE", "documents"],
    [safetensors({ query, documents, extra: query }), "ERR_VALUE", "extra"],
    [safetensors({ query: ["F32", [4], floats(4)], documents }), "ERR_SHAPE", "query"],
    [safetensors({ query: ["I64", [1, 1], new BigInt64Array(1)], documents }), "ERR_DTYPE", "query"],
    [safetensors({ query: ["F32", [2, 2], floats(4)], documents }), "ERR_SHAPE", "documents"],
    [safetensors({ query, documents: ["F32", [2, 4], floats(8)] }), "ERR_VALUE", "offsets"],
    [safetensors({ query, documents, offsets: i64([0, 2]) }), "ERR_VALUE", "offsets"],
    [safetensors({ query, documents: ["F32", [2, 4], floats(8)], offsets: i64([0, 3]) }), "ERR_INDEX", "offsets"],
    [safetensors({ query, documents: ["F32", [2, 4], floats(8)], offsets: i64([0, 2, 1, 2]) }), "ERR_INDEX", "offsets"],
    [safetensors({ query, documents: ["F32", [2, 4], floats(8)], offsets: i64([0, -1, 2]) }), "ERR_INDEX", "offsets[1]"],
    [safetensors({ query, documents, lengths: i64([1, 2]) }), "ERR_INDEX", "lengths"],
    [safetensors({ query, documents, lengths: i64([1]) }), "ERR_SHAPE", "lengths"],
    [safetensors({ query, documents: ["I8", [2, 1, 4], new Int8Array(8)] }), "ERR_VALUE", "documents_scales"],
    [safetensors({ query, documents, documents_scales: ["F32", [2], floats(2)] }), "ERR_VALUE", "documents_scales"],
    [safetensors({ query, documents: ["F32", [2, 1, 0], floats(0)] }), "ERR_SHAPE", "documents"],
    [safetensors({ query, documents: ["F32", [2, 1, 4], floats(8).fill(NaN, 6, 7)] }), "ERR_NON_FINITE", "documents"],
    [safetensors({ query: ["F32", [1, 4], floats(4).fill(-Infinity, 2, 3)], documents }), "ERR_NON_FINITE", "query"],
  ]) {
    const { status, json } = await post(url, "/v1/score", body);
    assert.equal(status, 400, JSON.stringify(json));
    assert.ok(json.field === field || (json.code === code && json.field?.startsWith(field)), JSON.stringify([field, json]));
    assert.equal(json.code, code, JSON.stringify(json));
  }
});

test("binary that is damaged anywhere is answered, never with 5xx", async () => {
  const good = safetensors({ query: ["F32", [2, 4], floats(8)], documents: ["F16", [6, 4], f16Vectors(24)], offsets: i64([0, 2, 6]) });
  let state = 7;
  const next = (below) => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) % below;
  const statuses = { 200: 0, 400: 0 };
  for (let i = 0; i < 300; i++) {
    const body = Buffer.from(good.subarray(0, i % 5 === 0 ? next(good.length) : good.length));
    for (let k = 0; k < 1 + next(3) && body.length > 0; k++) body[next(body.length)] = i % 3 === 0 ? 48 + next(10) : next(256);
    const { status, json } = await post(url, "/v1/score", body);
    assert.ok(status === 200 || (status === 400 && json.field && json.code.startsWith("ERR_")), JSON.stringify([status, json, body.toString("latin1")]));
    statuses[status] += 1;
  }
  assert.ok(statuses[200] > 10 && statuses[400] > 100, JSON.stringify(statuses));
});

test("bodies over the limit are 413, and other types 415", async () => {
  const large = await post(url, "/v1/score", Buffer.alloc(1024 * 1024 + 1));
  assert.deepEqual([large.status, large.json.code, large.json.field], [413, "ERR_LIMIT", "body"]);
  const json = await post(url, "/v1/score", JSON.stringify({ query: "x".repeat(65536) }));
  assert.deepEqual([json.status, json.json.field], [413, "body"]);
  // Without a length nobody can know until it has come.
  const parts = (async function* () {
    for (let i = 0; i < 20; i++) yield Buffer.alloc(65536);
  })();
  const chunked = await fetch(`${url}/v1/score`, { method: "POST", body: parts, duplex: "half", headers: { "content-type": "application/octet-stream" } });
  assert.equal(chunked.status, 413);
  assert.equal((await chunked.json()).field, "body");
  const text = await post(url, "/v1/score", "x", { type: "text/plain" });
  assert.deepEqual([text.status, text.json.field], [415, "headers.content-type"]);
  const binary = await post(url, "/v2/rerank", Buffer.from("x"));
  assert.equal(binary.status, 415, "texts are JSON");
});
