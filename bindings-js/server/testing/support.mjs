// A service in this process, and an engine to compare it with.
import { after } from "node:test";
import http from "node:http";
import os from "node:os";
import { readConfig, startService } from "../dist/index.js";
import { send } from "./client.mjs";

/** Where tests keep what they fetch, which is fetched once. */
export const CACHE = `${process.env.XDG_CACHE_HOME ?? `${os.homedir()}/.cache`}/maxsim-tests`;

const services = [];
after(() => Promise.all(services.map((service) => service.close())));

/** A service that is stopped after the tests of the file; `flags` are those of the command. */
export async function serve(...flags) {
  const service = await startService(readConfig(["--port", "0", "--log-level", "silent", "--drain-delay", "0", ...flags]));
  services.push(service);
  return service;
}

/** Sends JSON, or bytes as safetensors; the answer's JSON is in `json`. */
export async function post(url, path, body, options = {}) {
  const binary = Buffer.isBuffer(body);
  const bytes = binary ? body : Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
  const response = await send(url, path, bytes, { type: binary ? "application/octet-stream" : "application/json", ...options });
  return { ...response, json: parsed(response) };
}

export async function get(url, path, options) {
  const response = await send(url, path, undefined, options);
  return { ...response, json: parsed(response) };
}

function parsed({ body, headers }) {
  return headers?.["content-type"]?.startsWith("application/json") ? JSON.parse(body) : undefined;
}

/** A request of which only `part` of the body is sent, and then nothing, until `end()` or `leave()`. */
export function begin(url, path, part, length, headers = {}) {
  const request = http.request(new URL(path, url), {
    method: "POST", headers: { "content-type": "application/json", "content-length": length, ...headers },
  });
  const response = new Promise((resolve) => {
    request.once("response", (response) => {
      let body = "";
      response.on("data", (text) => (body += text));
      response.once("end", () => resolve({ status: response.statusCode, headers: response.headers, json: JSON.parse(body) }));
    });
    request.once("error", (error) => resolve({ error: error.code ?? error.message }));
  });
  request.write(part);
  return { response, request, leave: () => request.destroy() };
}

/** Waits until `check` holds; fails with its last value otherwise. */
export async function eventually(check, what, ms = 3000) {
  const end = performance.now() + ms;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Value of a metric without labels, or with those given as they are written. */
export async function metric(url, name) {
  const { body } = await get(url, "/metrics");
  const line = body.split("\n").find((line) => line.startsWith(`${name} `));
  return line === undefined ? 0 : Number(line.slice(name.length + 1));
}
