// What happens to requests before they reach a route, and to those that never do: keys, room, slowness, departures.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import { test } from "node:test";
import { rerankBody } from "../testing/client.mjs";
import { begin, eventually, get, metric, post, serve } from "../testing/support.mjs";

const BODY = { query: "a", documents: ["b"] };
const inside = (service) => metric(service.url, "maxsim_requests_inside");

test("health, readiness, metrics and the description are there", async () => {
  const { url } = await serve();
  assert.deepEqual((await get(url, "/health")).json, { status: "ok" });
  assert.deepEqual((await get(url, "/ready")).json, { status: "ready" });
  await post(url, "/v2/rerank", BODY);
  const { body, headers } = await get(url, "/metrics");
  assert.match(headers["content-type"], /^text\/plain/);
  assert.match(body, /^maxsim_http_requests_total\{route="\/v2\/rerank",method="POST",status="200"\} 1$/m);
  assert.match(body, /^maxsim_documents_total 1$/m);
  const description = (await get(url, "/openapi.json")).json;
  assert.equal(description.openapi, "3.1.0");
  assert.deepEqual(Object.keys(description.paths).sort(), ["/health", "/info", "/metrics", "/ready", "/rerank", "/v1/indexes", "/v1/indexes/{name}/search", "/v1/rerank", "/v1/score", "/v2/rerank"]);
  const score = description.paths["/v1/score"].post;
  assert.deepEqual(Object.keys(score.requestBody.content), ["application/json", "application/octet-stream", "application/x-safetensors"]);
  assert.ok(["200", "400", "401", "408", "413", "415", "429", "503"].every((status) => status in score.responses));
  const nowhere = await get(url, "/v3/rerank");
  assert.deepEqual([nowhere.status, nowhere.json.code, nowhere.json.field], [404, "ERR_NOT_FOUND", "path"]);
});

test("a request's id is the caller's, if it is plain, and is in the answer", async () => {
  const { url } = await serve();
  const given = await post(url, "/v2/rerank", BODY, { headers: { "x-request-id": "trace-7.a" } });
  assert.deepEqual([given.headers["x-request-id"], given.json.id], ["trace-7.a", "trace-7.a"]);
  const odd = await post(url, "/v2/rerank", BODY, { headers: { "x-request-id": "a b" } });
  assert.match(odd.json.id, /^[0-9a-f-]{36}$/);
  assert.match(given.headers["server-timing"], /^encode;dur=[\d.]+, score;dur=[\d.]+, total;dur=[\d.]+$/);
});

test("keys: one of them opens what computes; health and metrics stay open", async () => {
  const folder = mkdtempSync(`${os.tmpdir()}/maxsim-keys-`);
  writeFileSync(`${folder}/keys`, "first key\n\n  second  \n");
  const { url } = await serve("--api-key-file", `${folder}/keys`);
  rmSync(folder, { recursive: true });
  for (const [headers, status] of [
    [{}, 401],
    [{ authorization: "Bearer wrong" }, 401],
    [{ authorization: "Bearer " }, 401],
    [{ authorization: "Basic second" }, 401],
    [{ authorization: "Bearer first" }, 401],
    [{ authorization: "Bearer second" }, 200],
    [{ authorization: "bearer first key" }, 200],
    [{ "x-api-key": "second" }, 200],
    [{ "x-api-key": "seconds" }, 401],
  ]) {
    const response = await post(url, "/v2/rerank", BODY, { headers });
    assert.equal(response.status, status, JSON.stringify(headers));
    if (status === 401) {
      assert.equal(response.json.field, "headers.authorization");
      assert.equal(response.headers["www-authenticate"], "Bearer");
    }
  }
  for (const path of ["/health", "/ready", "/metrics"]) assert.equal((await get(url, path)).status, 200);
  assert.deepEqual((await get(url, "/openapi.json")).json.security, [{ key: [] }]);
});

test("a full service answers 429 before it has read a byte of the body, and has room again once somebody leaves", async () => {
  const service = await serve("--max-requests", "2");
  const { url } = service;
  const [first, second] = [begin(url, "/v2/rerank", "{", 100), begin(url, "/v2/rerank", "{", 100)];
  await eventually(async () => (await inside(service)) === 2, "two requests inside");
  // Nothing of this one's body is ever sent.
  const third = begin(url, "/v2/rerank", "", 100);
  third.request.flushHeaders();
  const refused = await third.response;
  assert.deepEqual([refused.status, refused.json.code], [429, "ERR_OVERLOADED"]);
  assert.match(refused.headers["retry-after"], /^([1-9]|[12]\d|30)$/);
  third.leave();
  assert.equal((await post(url, "/rerank", { query: "a", texts: ["b"] })).json.error_type, "Overloaded");
  assert.equal((await get(url, "/health")).status, 200);
  first.leave();
  await eventually(async () => (await inside(service)) === 1, "one request inside");
  assert.equal((await post(url, "/v2/rerank", BODY)).status, 200);
  second.leave();
});

test("bytes are bounded, too, and a length that is not declared counts as the longest", async () => {
  const service = await serve("--max-bytes", "3000", "--body-limit", "2000", "--json-limit", "2000");
  const one = begin(service.url, "/v2/rerank", "{", 1900);
  await eventually(async () => (await metric(service.url, "maxsim_bytes_inside")) === 1900, "its bytes inside");
  assert.equal((await post(service.url, "/v2/rerank", BODY)).status, 200);
  const chunked = await post(service.url, "/v2/rerank", BODY, { chunked: true });
  assert.equal(chunked.status, 429);
  one.leave();
  await eventually(async () => (await inside(service)) === 0, "room");
});

test("100-continue: the body is asked for only if it is wanted", async () => {
  const service = await serve("--max-requests", "1");
  const body = JSON.stringify(BODY);
  const expecting = () => new Promise((resolve) => {
    let asked = false;
    const request = http.request(`${service.url}/v2/rerank`, {
      method: "POST", headers: { "content-type": "application/json", "content-length": body.length, expect: "100-continue" },
    });
    request.once("continue", () => { asked = true; request.end(body); });
    request.once("response", (response) => { response.resume(); resolve([response.statusCode, asked]); });
    request.flushHeaders();
  });
  assert.deepEqual(await expecting(), [200, true]);
  const one = begin(service.url, "/v2/rerank", "{", 100);
  await eventually(async () => (await inside(service)) === 1, "one inside");
  assert.deepEqual(await expecting(), [429, false]);
  one.leave();
});

test("a body that does not come is 408 and frees its place", async () => {
  const service = await serve("--body-timeout", "300", "--headers-timeout", "300");
  const slow = begin(service.url, "/v2/rerank", '{"query":', 100);
  const { status, json } = await slow.response;
  assert.deepEqual([status, json.code, json.field], [408, "ERR_TIMEOUT", "body"]);
  assert.equal(await inside(service), 0);
});

test("headers and bodies that drip are cut off, however many there are, and others are served meanwhile", async () => {
  const service = await serve("--body-timeout", "400", "--headers-timeout", "400", "--max-requests", "40");
  const { hostname, port } = new URL(service.url);
  /** Sends `start`, then `more` a character at a time, until the service closes; what it answered. */
  const drip = (start, more) => new Promise((resolve) => {
    let at = 0, answer = "", timer;
    const socket = net.connect(Number(port), hostname, () => {
      socket.write(start);
      timer = setInterval(() => socket.write(more[at++ % more.length]), 20);
    });
    socket.on("data", (data) => (answer += data));
    socket.on("error", () => {});
    socket.once("close", () => { clearInterval(timer); resolve(answer); });
  });
  const head = "POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n";
  const headers = Array.from({ length: 30 }, () => drip("POST /v2/rerank HTTP/1.1\r\nX-Header: ", "x"));
  const bodies = Array.from({ length: 30 }, () => drip(head, " "));
  const served = [];
  for (let i = 0; i < 5; i++) served.push((await post(service.url, "/v2/rerank", BODY)).status);
  assert.deepEqual(served, [200, 200, 200, 200, 200]);
  for (const answer of await Promise.all(headers)) assert.match(answer, /^HTTP\/1\.1 408 [^]*"field":"headers"/);
  for (const answer of await Promise.all(bodies)) assert.match(answer, /^HTTP\/1\.1 408 [^]*"field":"body"/);
  assert.equal(await inside(service), 0);
});

test("what is no HTTP is 400, and headers that are too large are 431", async () => {
  const service = await serve();
  const { hostname, port } = new URL(service.url);
  const say = (text) => new Promise((resolve) => {
    let answer = "";
    const socket = net.connect(Number(port), hostname, () => socket.end(text));
    socket.on("data", (data) => (answer += data));
    socket.once("close", () => resolve(answer));
  });
  assert.match(await say("GARBAGE\r\n\r\n"), /^HTTP\/1\.1 400 [^]*"field":"headers"/);
  assert.match(await say(`GET / HTTP/1.1\r\nHost: x\r\nX: ${"x".repeat(70000)}\r\n\r\n`), /^HTTP\/1\.1 431 [^]*"field":"headers"/);
  assert.match(await say("POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"), /^HTTP\/1\.1 400 /);
});

test("texts that are wrong are 400 and named", async () => {
  const { url } = await serve("--max-documents", "3");
  for (const [body, field] of [
    [{ documents: ["a"] }, "query"],
    [{ query: "a" }, "documents"],
    [{ query: "", documents: ["a"] }, "query"],
    [{ query: 3, documents: ["a"] }, "query"],
    [{ query: "x".repeat(16385), documents: ["a"] }, "query"],
    [{ query: "a", documents: "b" }, "documents"],
    [{ query: "a", documents: [] }, "documents"],
    [{ query: "a", documents: ["b", "c", "d", "e"] }, "documents"],
    [{ query: "a", documents: ["b", 3] }, "documents[1]"],
    [{ query: "a", documents: ["b", null] }, "documents[1]"],
    [{ query: "a", documents: [{ title: "b" }] }, "documents[0].text"],
    [{ query: "a", documents: [{ text: 3 }] }, "documents[0].text"],
    [{ query: "a", documents: [{ text: "b" }], rank_fields: ["constructor"] }, "documents[0].constructor"],
    [{ query: "a", documents: ["b"], top_n: 0 }, "top_n"],
    [{ query: "a", documents: ["b"], top_n: 1.5 }, "top_n"],
    [{ query: "a", documents: ["b"], rank_fields: [3] }, "rank_fields[0]"],
    [{ query: "a", documents: ["b"], max_tokens_per_doc: -1 }, "max_tokens_per_doc"],
    [[], "body"],
  ]) {
    const { status, json } = await post(url, "/v2/rerank", body);
    assert.deepEqual([status, json.field], [400, field], JSON.stringify([body, json]));
  }
  const odd = await post(url, "/v2/rerank", { query: "\ud800 \0 ?", documents: ["\udfff", "\0".repeat(10), "🚢".repeat(50)] });
  assert.equal(odd.status, 200, odd.body);
});

test("a client that leaves stops its work", async () => {
  const service = await serve("--concurrency", "1");
  const body = rerankBody({ n: 900, chars: 8000 });
  const left = new AbortController();
  const pending = post(service.url, "/v2/rerank", body, { signal: left.signal, type: "application/json" });
  await eventually(async () => (await inside(service)) === 1, "it inside");
  setTimeout(() => left.abort(), 20);
  assert.equal((await pending).error, "ABORT_ERR");
  await eventually(async () => (await inside(service)) === 0, "nobody inside");
  await eventually(async () => (await metric(service.url, "maxsim_clients_left_total")) === 1, "its departure counted");
  // 7 MB of text take far longer than this if nobody stops them.
  const started = performance.now();
  assert.equal((await post(service.url, "/v2/rerank", BODY)).status, 200);
  assert.ok(performance.now() - started < 500, `${performance.now() - started} ms`);
});

test("a request that takes too long is 503", async () => {
  const service = await serve("--request-timeout", "30");
  const { status, json } = await post(service.url, "/v2/rerank", rerankBody({ n: 900, chars: 8000 }), { type: "application/json" });
  assert.deepEqual([status, json.code], [503, "ERR_TIMEOUT"]);
  await eventually(async () => (await inside(service)) === 0, "nobody inside");
});
