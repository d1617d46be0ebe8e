// The examples of web/README.md run as they stand there.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { launch, missing } from "./chromium.mjs";
import { serve } from "./server.mjs";

const readme = readFileSync(new URL("../../web/README.md", import.meta.url), "utf8");
const examples = [...readme.matchAll(/^```js\n(.*?)^```/gms)].map((match) => match[1]);

describe("examples of the README in Chromium", { skip: missing }, () => {
  let server, browser;
  before(async () => {
    server = await serve();
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    server?.close();
  });

  test("there are examples", () => assert.ok(examples.length >= 2));

  for (const [i, example] of examples.entries()) {
    test(`example ${i + 1}`, async () => {
      const page = await browser.open(`${server.origin}/spec/browser/page.html`);
      const code = example.replaceAll('"@maxsim/web"', JSON.stringify(`${server.origin}/web/dist/index.js`));
      const failed = await page.evaluate(async (code) => {
        const failed = [];
        console.assert = (holds) => holds || failed.push("an assertion does not hold");
        const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
        await import(url).catch((error) => failed.push(`${error.stack ?? error}`));
        return failed;
      }, code);
      await page.close();
      assert.deepEqual(failed, []);
    });
  }
});
