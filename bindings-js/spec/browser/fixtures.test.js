// Files of stored cases in Chromium.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { files } from "../fixtures/files.mjs";
import { launch, missing } from "./chromium.mjs";
import { CONFIGURATIONS } from "./configurations.mjs";
import { serve } from "./server.mjs";

describe("stored cases in Chromium", { skip: missing }, () => {
  let server, browser;
  before(async () => {
    server = await serve({ folders: Object.fromEntries(files().map(({ name, folder }) => [name.split("/")[0], folder])) });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    server?.close();
  });

  // Where the whole of a file is there, its selection says nothing more.
  const stored = files().filter((one, _, all) => !all.some(({ name }) => name !== one.name && one.name.startsWith("golden/") && name.endsWith(one.name.slice(6))));

  // Where a worker computes the same as the page does, one of them is enough.
  for (const { name: configuration, options } of CONFIGURATIONS.filter(({ name }) => /worker$/.test(name))) {
    for (const { name } of stored) {
      test(`${name}: ${configuration}`, async () => {
        const page = await browser.open(`${server.origin}/spec/browser/page.html`);
        await page.waitForFunction("globalThis.ready");
        await page.evaluate((options) => start(options), options);
        const { cases, wrong, worst } = await page.evaluate((url) => runFile(url), `${server.origin}/${name}`);
        await page.evaluate(() => finish());
        await page.close();
        const failed = Object.keys(wrong).length;
        console.log(`${configuration}, ${name}: ${cases - failed} passed, ${failed} failed; worst error ${worst.toFixed(3)} of the tolerance`);
        assert.deepEqual(wrong, {});
      });
    }
  }
});
