// What the load test and the tests share: bodies, a client that never gives up silently, a service as a child process.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import http from "node:http";
import { fileURLToPath } from "node:url";

/** A safetensors file: `{ name: [dtype, shape, typed array] }`. */
export function safetensors(tensors) {
  const header = {};
  let end = 0;
  for (const [name, [dtype, shape, data]] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, (end += data.byteLength)] };
  }
  // Spaces behind the header keep what follows aligned.
  const text = JSON.stringify(header);
  const json = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const parts = Object.values(tensors).map(([, , data]) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  return Buffer.concat([length, json, ...parts]);
}

/** Plausible token vectors as f16 bits: numbers of magnitude 1/16 to 1/8 of either sign. */
export function f16Vectors(count, seed = 1) {
  let state = seed;
  return Uint16Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 0x2c00 + ((state >>> 16) & 0x83ff);
  });
}

/** Body of `/v1/score`: one query of `lq` tokens, `n` documents of `ld` tokens. */
export function scoreBody({ n, lq = 32, ld = 180, dim = 128, seed = 1 }) {
  const offsets = BigInt64Array.from({ length: n + 1 }, (_, i) => BigInt(i * ld));
  return safetensors({
    query: ["F16", [lq, dim], f16Vectors(lq * dim, seed)],
    documents: ["F16", [n * ld, dim], f16Vectors(n * ld * dim, seed + 1)],
    offsets: ["I64", [n + 1], offsets],
  });
}

const WORDS = "the ship dived under cold water while harbour lights went out and nobody on the pier saw how it turned north again".split(" ");

/** Body of `/v2/rerank`: `n` texts of about `chars` characters. */
export function rerankBody({ n, chars, seed = 1 }) {
  let state = seed;
  const word = () => WORDS[(state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) % WORDS.length];
  const text = (length) => {
    let out = "";
    while (out.length < length) out += `${word()} `;
    return out;
  };
  return Buffer.from(JSON.stringify({ model: "any", query: text(40), documents: Array.from({ length: n }, () => text(chars)), top_n: 10 }));
}

/**
 * One request. Resolves, whatever happens, with `{ status, headers, body, ms, afterUpload }` or `{ error }`; `afterUpload`
 * is the time from the last byte handed to the kernel to the last byte of the response.
 */
export function send(url, path, body, { agent, type = "application/json", headers = {}, signal, chunked = false } = {}) {
  return new Promise((resolve) => {
    const started = performance.now();
    let sent = started;
    const request = http.request(new URL(path, url), {
      method: body === undefined ? "GET" : "POST",
      agent,
      signal,
      headers: { ...(body && { "content-type": type }), ...(body && !chunked && { "content-length": body.length }), ...headers },
    });
    request.once("finish", () => (sent = performance.now()));
    request.once("response", (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.once("end", () => {
        const now = performance.now();
        resolve({
          status: response.statusCode, headers: response.headers, body: Buffer.concat(parts).toString(),
          ms: now - started, afterUpload: now - sent,
        });
      });
      response.once("error", (error) => resolve({ error: error.code ?? error.message }));
    });
    request.once("error", (error) => resolve({ error: error.code ?? error.message }));
    // Node declares the length of a body that comes with the end of a request.
    if (chunked) request.flushHeaders();
    request.end(body);
  });
}

/** Milliseconds that the service says a part of a request took. */
export function serverTiming(response, name) {
  return Number(new RegExp(`\\b${name};dur=([\\d.]+)`).exec(response.headers["server-timing"])?.[1]);
}

/** The service as a process of its own, on a free port. `log` are its lines so far, `exit` resolves with its exit code. */
export async function launch(args = [], env = {}) {
  const main = fileURLToPath(new URL("../dist/main.js", import.meta.url));
  const child = spawn(process.execPath, [main, "--port", "0", ...args], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const log = [];
  let errors = "";
  child.stderr.on("data", (text) => (errors += text));
  const exit = new Promise((resolve) => child.once("close", (code, signal) => resolve(code ?? signal)));
  const url = await new Promise((resolve, reject) => {
    let rest = "";
    child.stdout.on("data", (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const entry = JSON.parse(line);
        log.push(entry);
        if (entry.msg === "listening") resolve(entry.url);
      }
    });
    void exit.then((code) => reject(new Error(`the service ended with ${code}: ${errors}`)));
  });
  return {
    url, child, log, exit,
    errors: () => errors,
    /** Resident memory in MiB, where /proc has it. */
    rss: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))[1]) / 1024,
    /** Processor time so far, in milliseconds, where /proc has it: unlike wall time, it does not depend on who else runs. */
    cpu: () => {
      const [utime, stime] = readFileSync(`/proc/${child.pid}/stat`, "utf8").split(") ")[1].split(" ").slice(11, 13).map(Number);
      return (utime + stime) * 10;
    },
    kill: (signal = "SIGTERM") => child.kill(signal),
    stop: async () => {
      child.kill("SIGKILL");
      await exit;
    },
  };
}

/** Starts `one(i)` at a fixed rate, whether earlier ones have ended or not, and waits for all of them. */
export async function openLoop(rate, seconds, one) {
  const started = performance.now();
  const total = Math.round(rate * seconds);
  const results = [];
  for (let i = 0; i < total; ) {
    const due = Math.min(total, Math.ceil(((performance.now() - started) / 1000) * rate));
    for (; i < due; i++) results.push(one(i));
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, started + (i * 1000) / rate - performance.now())));
  }
  return Promise.all(results);
}

/** `width` clients, each of which waits for an answer before it asks again. */
export async function closedLoop(width, seconds, one) {
  const results = [];
  const end = performance.now() + seconds * 1000;
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (performance.now() < end) results.push(await one(results.length));
    }),
  );
  return results;
}

/** Percentile of numbers. */
export function percentile(values, p) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor((p / 100) * sorted.length))];
}

/** How many times each value occurs. */
export function tally(values) {
  const counts = {};
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}
