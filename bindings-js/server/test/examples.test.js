// The programs in examples/ run against a service, and find the right document.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { serve } from "../testing/support.mjs";

const run = promisify(execFile);
const folder = fileURLToPath(new URL("../examples/", import.meta.url));

/** What each prints first or says first. */
const WANTED = {
  "cohere.mjs": [process.execPath, /^[\d.]+ {2}the submarine/],
  "rerank.sh": ["bash", /"results":\[\{"index":1,/],
};

test("every example is run", () => assert.deepEqual(readdirSync(folder).sort(), Object.keys(WANTED).sort()));

for (const [name, [command, wanted]] of Object.entries(WANTED)) {
  test(name, async () => {
    const { url } = await serve();
    const { stdout } = await run(command, [`${folder}${name}`, url]);
    assert.match(stdout, wanted);
  });
}
