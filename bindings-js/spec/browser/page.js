// Runs cases in a page: tests call these functions from Node.
import * as api from "../../web/dist/index.js";
import { suites } from "../cases/index.js";
import { open } from "../fixtures/file.js";
import { run } from "../fixtures/run.js";

const context = {
  api,
  now: () => performance.now(),
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
};

Object.assign(globalThis, {
  api,

  /** Makes the engine that cases share, and says what it is. */
  async start(options) {
    context.create = (more) => api.createEngine({ silent: true, ...options, ...more });
    context.engine = await context.create();
    return context.engine.info;
  },

  /** Runs one case; a failure is returned as text. */
  async runCase(suite, name) {
    try {
      await suites[suite].find((one) => one.name === name).run(context);
      return undefined;
    } catch (error) {
      return `${error?.stack ?? error}`;
    }
  },

  /** Runs the stored cases of a file; what is wrong, by case. */
  async runFile(url) {
    const files = open(await (await fetch(url)).arrayBuffer());
    const wrong = {};
    let worst = 0;
    for (const file of files) {
      const verdict = await run(context, file);
      if (verdict.problems.length > 0) wrong[file.name] = verdict.problems.join("; ");
      worst = Math.max(worst, verdict.worst);
    }
    return { cases: files.length, wrong, worst };
  },

  finish: () => context.engine.dispose(),
});
globalThis.ready = true;
