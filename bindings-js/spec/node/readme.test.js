// The examples of node/README.md run as they stand there.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";

const readme = readFileSync(new URL("../../node/README.md", import.meta.url), "utf8");
const examples = [...readme.matchAll(/^```(?:ts|js)\n(.*?)^```/gms)].map((match) => match[1]);

// Node's prints and goes on.
console.assert = (holds) => assert.ok(holds, "an assertion of the example");

test("there are examples", () => assert.ok(examples.length >= 3));

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
