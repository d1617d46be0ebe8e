// Runs cases in a page: tests call these functions from Node.
import * as api from "../../web/dist/index.js";
import { suites } from "../cases/index.js";
import { open } from "../fixtures/file.js";
import { run } from "../fixtures/run.js";

/** The directory at a path `opfs:…`. */
const directory = async (path) => (await navigator.storage.getDirectory()).getDirectoryHandle(path.slice("opfs:".length));

/** Files of indexes, in a file system that all pages of a test share. */
const files = {
  path: () => `opfs:index-${crypto.randomUUID()}`,
  async names(path) {
    const names = [];
    for await (const name of (await directory(path)).keys()) names.push(name);
    return names;
  },
  async read(path, name) {
    return new Uint8Array(await (await (await (await directory(path)).getFileHandle(name)).getFile()).arrayBuffer());
  },
  async write(path, name, bytes) {
    const stream = await (await (await directory(path)).getFileHandle(name, { create: true })).createWritable();
    await stream.write(bytes);
    await stream.close();
  },
  remove: async (path, name) => (await directory(path)).removeEntry(name),
};

const context = {
  api,
  files,
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
