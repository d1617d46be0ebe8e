// WebGPU as Chrome has it, with 16-bit floats and subgroups, which Chrome's own software adapter lacks: Dawn in Node, on a
// software Vulkan driver (`tests/lavapipe`). Runs the GPU's module of @maxsim/web on this thread.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { create, globals } from "webgpu";
import { compile, variants } from "../browser/variants.mjs";
import { suites } from "../cases/index.js";
import { open } from "../fixtures/file.js";
import { files } from "../fixtures/files.mjs";
import { run } from "../fixtures/run.js";

// What a browser's worker has and Node has not.
Object.assign(globalThis, globals);
Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]) }, configurable: true });
globalThis.WorkerGlobalScope = class {};
Object.defineProperty(globalThis.WorkerGlobalScope, Symbol.hasInstance, { value: (value) => value === globalThis });
globalThis.fetch = async (url) => new Response(readFileSync(new URL(url)), { headers: { "content-type": "application/wasm" } });

const adapter = await navigator.gpu.requestAdapter();
const reason = adapter === null ? "Dawn finds no adapter: select a driver with tests/lavapipe" : undefined;

describe("WebGPU of Dawn", { skip: reason }, () => {
  let api, engine;
  const create = (options) => api.createEngine({ silent: true, worker: false, ...options });
  before(async () => {
    api = await import("../../web/dist/index.js");
    engine = await create({ backend: "wgpu" });
  });
  after(() => engine.dispose());

  test("every kernel variant compiles", async () => {
    const all = variants();
    const wanted = [...new Set(all.flatMap(({ requires }) => requires))];
    const device = await adapter.requestDevice({ requiredFeatures: wanted.filter((feature) => adapter.features.has(feature)) });
    assert.deepEqual(wanted.filter((feature) => !device.features.has(feature)), [], "features this adapter lacks");
    assert.deepEqual(await compile(device, all), []);
    device.destroy();
    console.log(`${all.length} variants compiled`);
  });

  test("shaders compute in 16 bit", () => {
    assert.deepEqual([engine.info.backend, engine.info.level], ["wgpu", "f16"]);
  });

  for (const { path, name } of files().filter(({ name }) => name.startsWith("golden"))) {
    test(name, async () => {
      const wrong = {};
      const cases = open(new Uint8Array(readFileSync(path)).buffer);
      for (const file of cases) {
        const { problems } = await run({ api, engine }, file);
        if (problems.length > 0) wrong[file.name] = problems.join("; ");
      }
      const failed = Object.keys(wrong).length;
      console.log(`${name}: ${cases.length - failed} passed, ${failed} failed`);
      assert.deepEqual(wrong, {});
    });
  }

  for (const [suite, cases] of Object.entries(suites).filter(([suite]) => ["operators", "inputs", "corpora"].includes(suite))) {
    for (const { name, run } of cases) {
      test(`${suite}: ${name}`, () => run({ api, engine, create, now: () => performance.now(), sleep }));
    }
  }
});
