// The shared cases in Chromium: every module of @maxsim/web, on a worker and on the page's thread.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { suites } from "@maxsim/spec/cases";
import { launch, missing } from "./chromium.mjs";
import { CONFIGURATIONS } from "./configurations.mjs";
import { serve } from "./server.mjs";

/** What cannot be, and why. */
function skipped({ options }, name) {
  if (options.backend === "cpu" && options.worker === false && name === "a call under way stops soon after its signal") {
    return "the thread that would abort it is the one that computes";
  }
  return false;
}

describe("cases in Chromium", { skip: missing }, () => {
  let server, browser;
  before(async () => {
    server = await serve();
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    server?.close();
  });

  for (const configuration of CONFIGURATIONS) {
    const { name, options, info, query = "" } = configuration;
    describe(name, () => {
      let page;
      before(async () => {
        page = await browser.open(`${server.origin}/spec/browser/page.html${query}`);
        await page.waitForFunction("globalThis.ready");
        const { backend, level } = await page.evaluate((options) => start(options), options);
        assert.deepEqual([backend, level], info);
      });
      after(async () => {
        await page.evaluate(() => finish());
        await page.close();
      });

      // An index has a thread and a device of its own, for which software compiles every kernel anew: `indexes.test.js` has a GPU on the
      // page's thread search one.
      const here = Object.entries(suites).filter(([suite]) => suite !== "indexes" || name !== "WebGPU, page");
      for (const [suite, cases] of here) {
        for (const { name } of cases) {
          test(`${suite}: ${name}`, { skip: skipped(configuration, name) }, async () => {
            const failure = await page.evaluate(([suite, name]) => runCase(suite, name), [suite, name]);
            assert.equal(failure, undefined, failure);
          });
        }
      }
    });
  }
});
