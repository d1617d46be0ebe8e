// The examples of the README: what curl answers is what stands there; the table of settings is the one in the code.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import { test } from "node:test";
import { promisify } from "node:util";
import { SETTINGS } from "../dist/config.js";
import { safetensors } from "../testing/client.mjs";
import { CACHE, serve } from "../testing/support.mjs";

const run = promisify(execFile);
const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const blocks = [...readme.matchAll(/^```(\w+)\n(.*?)^```/gms)].map(([, language, text]) => ({ language, text }));
const ADDRESS = "http://127.0.0.1:8787";

/** Equal but for ids, and for the last digits of numbers. */
function alike(got, want, path = "answer") {
  if (typeof want === "number") return assert.ok(Math.abs(got - want) <= 1e-3, `${path}: ${got} for ${want}`);
  if (typeof want !== "object" || want === null) return path.endsWith(".id") ? assert.ok(got) : assert.equal(got, want, path);
  assert.deepEqual(Object.keys(got), Object.keys(want), path);
  for (const key of Object.keys(want)) alike(got[key], want[key], `${path}.${key}`);
}

test("curl answers what the README says", async (t) => {
  const examples = blocks.flatMap(({ text }, i) => (text.startsWith("curl") && blocks[i + 1]?.language === "json" ? [[text, blocks[i + 1].text]] : []));
  assert.ok(examples.length >= 5);
  const { url } = await serve();
  const cwd = mkdtempSync(`${os.tmpdir()}/maxsim-readme-`);
  const f32 = (...values) => Float32Array.from(values);
  writeFileSync(`${cwd}/vectors.safetensors`, safetensors({
    query: ["F32", [2, 2], f32(1, 0, 0, 1)], documents: ["F32", [3, 2], f32(0.6, 0.8, 1, 0, 0, 1)], offsets: ["I64", [3], BigInt64Array.of(0n, 1n, 3n)],
  }));
  for (const [example, answer] of examples) {
    await t.test(example.split("\n")[0], async () => {
      const { stdout } = await run("bash", ["-euc", example.replaceAll(ADDRESS, url)], { cwd });
      alike(JSON.parse(stdout), JSON.parse(answer));
    });
  }
  rmSync(cwd, { recursive: true });
});

test("the Python example writes what the service reads", async (t) => {
  const example = blocks.find(({ language }) => language === "python").text;
  const packages = `${CACHE}/python`;
  const env = { ...process.env, PYTHONPATH: packages };
  const works = () => run("python3", ["-c", "import numpy, safetensors"], { env });
  try {
    await works().catch(async () => {
      await run("python3", ["-m", "pip", "install", "--quiet", "--target", packages, "numpy", "safetensors"], { timeout: 120_000 });
      await works();
    });
  } catch (error) {
    return t.skip(`numpy and safetensors cannot be had with pip: ${error.message.split("\n")[0]}`);
  }
  const { url } = await serve();
  const { stdout } = await run("python3", ["-c", example.replaceAll(ADDRESS, url)], { env });
  assert.match(stdout, /"scores":\[/);
});

test("the settings of the README are those of the command", () => {
  const rows = [...readme.matchAll(/^\| `--([\w-]+)` \| `(\w+)` \| (.*?) \|/gm)].map(([, flag, env, value]) => [flag, env, value.replaceAll("`", "")]);
  assert.deepEqual(rows, Object.values(SETTINGS).map((s) => [s.flag, s.env, s.default]));
});
