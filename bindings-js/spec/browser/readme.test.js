// The examples of the documents run as they stand there.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { launch, missing } from "./chromium.mjs";
import { serve } from "./server.mjs";

const examples = ["README.md", "bindings-js/web/README.md", "docs/guide-browser.md"].flatMap((document) => {
  const text = readFileSync(new URL(`../../../${document}`, import.meta.url), "utf8");
  return [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, code], i) => ({ name: `${document}, example ${i + 1}`, code }));
});

describe("examples of documents in Chromium", { skip: missing }, () => {
  let server, browser;
  before(async () => {
    server = await serve();
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    server?.close();
  });

  test("there are examples", () => assert.ok(examples.length >= 10));

  for (const { name, code } of examples) {
    test(name, async () => {
      const page = await browser.open(`${server.origin}/spec/browser/page.html`);
      const module = code.replaceAll('"@maxsim/web"', JSON.stringify(`${server.origin}/web/dist/index.js`));
      const failed = await page.evaluate(async (code) => {
        const failed = [];
        console.assert = (holds) => holds || failed.push("an assertion does not hold");
        const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
        await import(url).catch((error) => failed.push(`${error.stack ?? error}`));
        return failed;
      }, module);
      await page.close();
      assert.deepEqual(failed, []);
    });
  }
});
