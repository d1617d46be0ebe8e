// Parts that need no page.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

describe("parts", () => {
  let vite, load;
  before(async () => {
    vite = await createServer({ root: fileURLToPath(new URL("..", import.meta.url)), logLevel: "error", server: { middlewareMode: true }, appType: "custom" });
    load = (module) => vite.ssrLoadModule(`/src/${module}.ts`);
  });
  after(() => vite?.close());

  test("passages have all words of a text, in order, each no longer than is shown", async () => {
    const { passages } = await load("worker/passages");
    const random = (seed) => () => (seed = (seed * 16807) % 2147483647) / 2147483647;
    for (let seed = 1; seed <= 50; seed++) {
      const next = random(seed);
      const word = () => "abcdefghijäß中😀".slice(0, 1 + Math.floor(next() * 12)) + (next() < 0.1 ? "." : "");
      const text = Array.from({ length: 400 }, () => word() + (next() < 0.05 ? "\r\n\r\n" : next() < 0.1 ? "\n" : " ")).join("");
      const found = passages(text);
      const words = (of) => of.split(/\s+/).filter(Boolean);
      assert.deepEqual(words(found.map((one) => one.text).join(" ")), words(text));
      for (const { text } of found) assert.ok(text.length <= 800 && text.trim() === text, `${text.length}`);
    }
  });

  test("passages say in which line they start", async () => {
    const { passages } = await load("worker/passages");
    const long = "A sentence that is not short at all, so that it stands for itself. ".repeat(4).trim();
    const lines = (text) => passages(text).map(({ line }) => line);
    assert.deepEqual(lines(`${long}\n\n\n${long}`), [1, 4]);
    assert.deepEqual(lines(`\n\r\n${long}\r\n\r\n${long}`), [3, 5]);
    assert.deepEqual(lines("title\n\nshort text\n\nand more"), [1]);
    assert.deepEqual(passages(""), []);
  });

  test("texts without spaces are cut, but never within a character", async () => {
    const { passages } = await load("worker/passages");
    const text = `a${"😀".repeat(2000)}`;
    const found = passages(text);
    assert.ok(found.length > 3);
    assert.equal(found.map((one) => one.text).join(""), text);
    for (const one of found) assert.ok(one.text.isWellFormed());
  });

  test("bytes are decoded as what they are", async () => {
    const { decode } = await load("worker/decode");
    const of = (...bytes) => decode(Uint8Array.from(bytes));
    const utf8 = (text) => decode(new TextEncoder().encode(text));
    assert.deepEqual(utf8("naïve 中 😀\n"), { text: "naïve 中 😀\n", encoding: "UTF-8" });
    assert.deepEqual(of(0xef, 0xbb, 0xbf, 0x61), { text: "a", encoding: "UTF-8" });
    assert.deepEqual(of(0xfe, 0xff, 0x00, 0x61), { text: "a", encoding: "UTF-16BE" });
    assert.deepEqual(of(0x63, 0x61, 0x66, 0xe9), { text: "café", encoding: "Windows-1252" });
    for (const bytes of [[0x61, 0], [0x89, 0x50, 0x4e, 0x47, 0x0d], [0xe9, 0x01], [0xff, 0xfe, 0x00, 0xd8]]) assert.ok("problem" in of(...bytes), bytes);
  });

  test("tokens are found in the text that they were made of", async () => {
    const { alignTokens } = await load("worker/encoders/spans");
    const spelled = (text, tokens) => {
      const spans = alignTokens(text, tokens);
      return tokens.map((_, t) => text.slice(spans[2 * t], spans[2 * t + 1]));
    };
    assert.deepEqual(spelled("The Café's subMARINE", ["[CLS]", "[D] ", "the", "cafe", "'", "s", "sub", "##marine", "[SEP]"]),
      ["", "", "The", "Café", "'", "s", "sub", "MARINE", ""]);
    assert.deepEqual(spelled("ice ice", ["Ġice", "Ġice"]), ["ice", "ice"]);
    // What the vocabulary lacks is passed over, and what follows is still found.
    assert.deepEqual(spelled("a ☃ man", ["a", "[UNK]", "man"]), ["a", "", "man"]);
    assert.deepEqual(spelled("e\u0301te\u0301", ["ete"]), ["e\u0301te\u0301"]);
    assert.deepEqual(spelled("", ["[CLS]"]), [""]);
  });

  test("tables of tokens survive being kept, and damaged ones are none", async () => {
    const { concat, head, parse, serialize } = await load("worker/tokens");
    const table = (rows, seed) => ({
      dim: 3,
      data: Int8Array.from({ length: 3 * rows }, (_, i) => seed * 7 - i),
      scales: Float32Array.from({ length: rows }, (_, i) => seed + i / 2),
      offsets: Uint32Array.of(0, 1, rows),
      spans: Uint32Array.from({ length: 2 * rows }, (_, i) => seed + i),
    });
    const both = concat([table(2, 1), table(4, 2)], 3);
    assert.deepEqual([...both.offsets], [0, 1, 2, 3, 6]);
    assert.deepEqual(head(both, 2), table(2, 1));
    assert.deepEqual(concat([], 3).offsets, Uint32Array.of(0));
    const bytes = await serialize(both).arrayBuffer();
    assert.deepEqual(parse(bytes), both);
    for (const length of [0, 8, 15, 16, bytes.byteLength - 1]) assert.equal(parse(bytes.slice(0, length)), undefined);
    const other = new Uint8Array(bytes.slice(0));
    other[0] ^= 1;
    assert.equal(parse(other.buffer), undefined);
  });

  test("marks lie over the text without changing it", async () => {
    const { pieces, scale } = await load("highlight");
    const text = "precipitation in the form of ice";
    const matches = [
      { query: 0, token: 5, start: 29, end: 32, similarity: 0.6 },
      { query: 1, token: 5, start: 29, end: 32, similarity: 0.9 },
      { query: 2, token: 0, start: 0, end: 13, similarity: 0.5 },
      { query: 3, token: 1, start: 14, end: 16, similarity: 0.01 },
      { query: 4, token: 9, start: 0, end: 0, similarity: 0.9 },
    ];
    const found = pieces({ text, matches }, scale([{ matches }]));
    assert.equal(found.map((piece) => piece.text).join(""), text);
    assert.deepEqual(found.filter(({ strength }) => strength > 0).map((piece) => [piece.text, piece.matches.length]), [["precipitation", 1], ["ice", 2]]);
    assert.equal(Math.max(...found.map(({ strength }) => strength)), 1);
    assert.deepEqual(pieces({ text, matches: [] }, scale([])), [{ text, strength: 0, matches: [] }]);
  });
});
