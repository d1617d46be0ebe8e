// The shared cases in Node, on every backend that this machine has.
import { mkdtempSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import * as api from "@maxsim/node";
import { suites } from "@maxsim/spec/cases";
import { backends } from "./backends.mjs";

const directory = mkdtempSync(join(tmpdir(), "maxsim-spec-"));
let places = 0;
const files = {
  path: () => join(directory, `index-${places++}`),
  names: readdir,
  read: async (path, name) => new Uint8Array(await readFile(join(path, name))),
  write: (path, name, bytes) => writeFile(join(path, name), bytes),
  remove: (path, name) => rm(join(path, name)),
};
after(() => rm(directory, { recursive: true }));

for (const { backend, create, missing } of await backends()) {
  describe(backend, { skip: missing }, () => {
    const context = { api, create, now: () => performance.now(), sleep, files };
    before(async () => (context.engine = await create()));
    after(() => context.engine.dispose());
    for (const [suite, cases] of Object.entries(suites)) {
      describe(suite, () => {
        for (const { name, run } of cases) test(name, () => run(context));
      });
    }
  });
}
