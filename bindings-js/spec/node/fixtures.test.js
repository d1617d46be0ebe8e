// Files of stored cases in Node, on every backend that this machine has: the selection in tests/golden, and whole files where MAXSIM_FIXTURES is.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import * as api from "@maxsim/node";
import { open } from "../fixtures/file.js";
import { files } from "../fixtures/files.mjs";
import { run } from "../fixtures/run.js";
import { backends } from "./backends.mjs";

for (const { backend, create, missing } of await backends()) {
  describe(backend, { skip: missing }, () => {
    let engine;
    before(async () => (engine = await create()));
    after(() => engine.dispose());
    for (const { path, name } of files()) {
      describe(name, () => {
        for (const file of open(new Uint8Array(readFileSync(path)).buffer)) {
          test(file.name, async () => {
            const { problems } = await run({ api, engine }, file);
            assert.deepEqual(problems, [], file.name);
          });
        }
      });
    }
  });
}
