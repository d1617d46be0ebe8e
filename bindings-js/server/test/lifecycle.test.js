// The command as a process: flags, stopping under load, overload.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import os from "node:os";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { help, readConfig, SETTINGS } from "../dist/config.js";
import { closedLoop, launch, openLoop, rerankBody, send, tally } from "../testing/client.mjs";
import { get, eventually } from "../testing/support.mjs";

const MAIN = fileURLToPath(new URL("../dist/main.js", import.meta.url));
const outcome = (response) => response.error ?? response.status;
const launched = [];
after(() => Promise.all(launched.map((service) => service.stop())));
async function start(...args) {
  const service = await launch(args);
  launched.push(service);
  return service;
}

function command(...args) {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { env: { PATH: process.env.PATH } }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr }));
  });
}

test("flags: help, version, mistakes that name the flag, what cannot be loaded", async () => {
  assert.match((await command("--help")).stdout, /--max-requests +MAXSIM_MAX_REQUESTS/);
  assert.match((await command("--version")).stdout, /^\d+\.\d+\.\d+\n$/);
  const empty = mkdtempSync(`${os.tmpdir()}/maxsim-empty-`);
  writeFileSync(`${empty}/keys`, "\n");
  for (const [args, code, message] of [
    [["--port", "x"], 2, /--port: expected an integer from 0 to 65535, got "x"/],
    [["--portt", "1"], 2, /--portt/],
    [["--encoder", "bm25"], 2, /--encoder: expected one of static, onnx/],
    [["--encoder", "onnx"], 2, /--model: expected the folder/],
    [["--model", "x"], 2, /--model: expected none/],
    [["--body-limit", "1TiB"], 2, /--body-limit: expected a size/],
    [["--body-limit", "1GiB"], 2, /--body-limit: expected at most --max-bytes/],
    [["--api-key-file", "/nowhere"], 2, /--api-key-file: ENOENT/],
    [["--api-key-file", `${empty}/keys`], 2, /--api-key-file: expected at least one key/],
    [["--encoder", "onnx", "--model", empty], 1, /expected one of model\.onnx/],
    [["--host", "203.0.113.1"], 1, /EADDRNOTAVAIL/],
  ]) {
    const result = await command(...args);
    assert.equal(result.code, code, `${args}: ${result.stderr}`);
    assert.match(result.stderr, message);
    assert.equal(result.stderr.trim().split("\n").length, 1, `one line: ${result.stderr}`);
  }
  rmSync(empty, { recursive: true });
});

test("settings come from flags, then the environment, then defaults", () => {
  const config = readConfig(["--max-requests", "7", "--body-limit", "2k", "--json-limit", "1k"], { MAXSIM_MAX_REQUESTS: "9", MAXSIM_MAX_BYTES: "1MiB", MAXSIM_API_KEYS: " a, b,,", PORT: "0" });
  assert.deepEqual([config.maxRequests, config.bodyLimit, config.maxBytes, config.port], [7, 2048, 1024 ** 2, 0]);
  assert.deepEqual([config.apiKeys, config.threads, config.bodyTimeout], [["a", "b"], undefined, 15000]);
  assert.throws(() => readConfig([], { MAXSIM_THREADS: "0" }), /MAXSIM_THREADS: expected an integer from 1/);
  assert.throws(() => readConfig([], { MAXSIM_API_KEYS: "," }), /MAXSIM_API_KEYS: expected at least one key/);
  for (const { flag, env } of Object.values(SETTINGS)) assert.ok(help().includes(`--${flag}`) && help().includes(env));
});

test("SIGTERM under load: everything that was accepted is answered, and connections are told to close", async () => {
  const service = await start("--drain-delay", "300");
  const body = rerankBody({ n: 60, chars: 500 });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
  const load = openLoop(120, 2.5, async () => ({ ...(await send(service.url, "/v2/rerank", body, { agent })), at: performance.now() }));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  service.kill();
  await eventually(async () => (await get(service.url, "/ready")).status === 503, "not ready any more");
  const told = performance.now();
  assert.equal(await service.exit, 0);
  const responses = await load;
  const stopped = service.log.find(({ msg }) => msg === "stopped");
  const counts = tally(responses.map(outcome));
  assert.equal(stopped.finished, true);
  assert.equal(counts[200], stopped.admitted, JSON.stringify(counts));
  const unexpected = responses.filter((r) => ![200, 429, "ECONNREFUSED", "ECONNRESET"].includes(outcome(r)));
  assert.deepEqual(unexpected, []);
  const late = responses.filter((r) => r.status && r.at > told);
  assert.ok(late.length > 0 && late.every((r) => r.headers.connection === "close"), `${late.length} answers after the signal`);
  assert.deepEqual(service.log.filter(({ level }) => level >= 50), [], "no errors in the log");
});

test("SIGTERM waits for a request whose body is still coming, but not for ever", async () => {
  for (const [finishes, code] of [[true, 0], [false, 1]]) {
    const service = await start("--drain-delay", "0", "--shutdown-timeout", "700");
    const body = Buffer.from(JSON.stringify({ query: "a", documents: ["b"] }));
    const request = http.request(`${service.url}/v2/rerank`, { method: "POST", headers: { "content-type": "application/json", "content-length": body.length } });
    const response = new Promise((resolve) => request.once("response", (r) => resolve(r.resume().statusCode)).once("error", (e) => resolve(e.code)));
    request.write(body.subarray(0, 5));
    await eventually(async () => /^maxsim_requests_inside 1$/m.test((await get(service.url, "/metrics")).body), "it inside");
    service.kill();
    await eventually(() => service.log.some(({ msg }) => msg === "stopping"), "stopping");
    if (finishes) setTimeout(() => request.end(body.subarray(5)), 200);
    assert.equal(await service.exit, code);
    assert.equal(await response, finishes ? 200 : "ECONNRESET");
  }
});

test("overload: every request is answered with a result or 429, memory stays, and it is over when it is over", async () => {
  const service = await start();
  const body = rerankBody({ n: 100, chars: 600 });
  assert.ok(body.length <= 64 * 1024);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 128 });
  const one = () => send(service.url, "/v2/rerank", body, { agent });
  const capacity = (await closedLoop(4, 1.5, one)).length / 1.5;
  const before = service.rss();
  let peak = before;
  const watch = setInterval(() => (peak = Math.max(peak, service.rss())), 50);
  const responses = await openLoop(10 * capacity, 5, one);
  clearInterval(watch);
  const counts = tally(responses.map(outcome));
  assert.deepEqual(Object.keys(counts).sort(), ["200", "429"], JSON.stringify(counts));
  assert.ok(responses.filter((r) => r.status === 429).every((r) => Number(r.headers["retry-after"]) >= 1));
  assert.ok(peak - before <= 150, `${before} to ${peak} MiB`);
  const started = performance.now();
  assert.equal((await one()).status, 200);
  assert.ok(performance.now() - started <= 2000, `${performance.now() - started} ms`);
});
