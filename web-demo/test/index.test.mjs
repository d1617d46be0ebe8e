// The index that may be published with the page, read where it lies.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { missing, search, visit } from "./site.mjs";

const FACTS = new URL("../dist/meanings.json", import.meta.url);
const unpublished = existsSync(FACTS) ? undefined : "no index is published with the site (npm run index)";

describe("an index", { skip: missing ?? unpublished }, () => {
  let at, read;
  before(async () => {
    at = await visit({ gpu: false, path: "" });
    read = [];
    at.page.context().on("response", (response) => {
      // What the service worker passes on is seen twice.
      if (response.url().endsWith(".mxi") && response.request().serviceWorker() === null) read.push(Number(response.headers()["content-length"]));
    });
    await at.page.getByRole("radio", { name: /index|WordNet/ }).check({ force: true });
    await at.page.getByText("texts searched in").waitFor({ timeout: 60_000 });
  });
  after(() => at?.close());

  test("answers after a part of it was read", async () => {
    const { documents, bytes } = JSON.parse(readFileSync(FACTS, "utf8"));
    assert.match(await at.page.getByTestId("status").textContent(), new RegExp(`^an index of ${documents.toLocaleString("en")} texts searched in`));
    assert.match(await at.page.locator(".result h2").first().textContent(), /snow/);
    const total = read.reduce((sum, size) => sum + size, 0);
    console.log(`read ${total} of ${bytes} bytes in ${read.length} requests`);
    assert.ok(total > 0 && total < bytes, `${total} of ${bytes} bytes`);
  });

  test("finds what comparing everything finds, and shows why", async () => {
    await search(at.page, "fear of closed spaces", "claustrophobia");
    assert.deepEqual(await at.page.locator(".result").first().locator("mark").allTextContents(), ["fear", "closed", "space"]);
    await at.page.locator(".result").first().getByRole("button", { name: /heat map/ }).click();
    await at.page.locator("td.best").first().waitFor();
  });

  test("stays open beside the others", async () => {
    await at.page.getByRole("radio", { name: /word meanings/ }).check({ force: true });
    await at.page.getByTestId("status").filter({ hasText: "tokens compared" }).waitFor();
    await at.page.getByRole("radio", { name: /index|WordNet/ }).check({ force: true });
    await search(at.page, "someone who repairs shoes", "cobbler");
  });
});
