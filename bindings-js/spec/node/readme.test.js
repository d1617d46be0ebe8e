// The examples of node/README.md, and those for Node of the README of the repository, run as they stand there.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";

const blocks = (path, languages) => {
  const text = readFileSync(new URL(path, import.meta.url), "utf8");
  return [...text.matchAll(new RegExp(`^\`\`\`(?:${languages})\\n(.*?)^\`\`\``, "gms"))].map((match) => match[1]);
};
const examples = [...blocks("../../node/README.md", "ts|js"), ...blocks("../../../README.md", "ts")];

// Node's prints and goes on.
console.assert = (holds) => assert.ok(holds, "an assertion of the example");

test("there are examples", () => assert.ok(examples.length >= 4));

for (const [i, example] of examples.entries()) {
  test(`example ${i + 1}: ${example.split("\n").find((line) => line.startsWith("const"))}`, async () => {
    // Inside this package, so that `@maxsim/node` is found.
    const directory = mkdtempSync(fileURLToPath(new URL("./example-", import.meta.url)));
    try {
      writeFileSync(`${directory}/example.mjs`, example);
      await import(`${directory}/example.mjs`);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
}
