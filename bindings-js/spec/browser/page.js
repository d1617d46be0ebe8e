// Runs cases in a page: tests call these functions from Node.
import * as api from "../../web/dist/index.js";
import { suites } from "../cases/index.js";

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

  finish: () => context.engine.dispose(),
});
globalThis.ready = true;
