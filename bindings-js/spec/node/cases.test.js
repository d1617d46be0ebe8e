// The shared cases on Node's CPU backend.
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import * as api from "@maxsim/node";
import { suites } from "@maxsim/spec/cases";

const create = (options) => api.createEngine({ backend: "cpu", silent: true, ...options });
const context = { api, create, now: () => performance.now(), sleep };

before(async () => {
  context.engine = await create();
});
after(() => context.engine.dispose());

for (const [suite, cases] of Object.entries(suites)) {
  describe(suite, () => {
    for (const { name, run } of cases) test(name, () => run(context));
  });
}
