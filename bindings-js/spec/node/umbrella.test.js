// The umbrella package is the right one of the two.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import * as node from "@maxsim/node";
import * as maxsim from "maxsim";

const here = fileURLToPath(new URL(".", import.meta.url));

test("in Node it is @maxsim/node", () => {
  assert.equal(maxsim.createEngine, node.createEngine);
  assert.deepEqual(Object.keys(maxsim).sort(), Object.keys(node).sort());
});

test("by the conditions of browsers it is @maxsim/web", () => {
  for (const condition of ["browser", "worker"]) {
    const code = 'console.log(import.meta.resolve("maxsim"))';
    const resolved = execFileSync(process.execPath, ["-C", condition, "--input-type=module", "--eval", code], { cwd: here, encoding: "utf8" });
    assert.match(resolved, /maxsim\/dist\/web\.js\s*$/);
  }
});
