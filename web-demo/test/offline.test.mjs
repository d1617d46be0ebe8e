// The second visit, without a connection.
import assert from "node:assert/strict";
import { test } from "node:test";
import { choose, missing, NOTES, results, search, visit } from "./site.mjs";

test("works without a server after the first visit", { skip: missing }, async () => {
  const { page, site, close } = await visit({ gpu: false, path: "" });
  try {
    await choose(page, ["harbour.txt", NOTES]);
    await page.evaluate(() => navigator.serviceWorker.ready);
    await site.close();
    // That it is gone.
    await assert.rejects(fetch(site.origin));
    await page.goto(`${site.origin}?q=fear+of+closed+spaces`);
    await results(page);
    assert.match(await page.locator(".result h2").first().textContent(), /^claustrophobia/);
    await page.getByRole("radio", { name: /Your files/ }).check({ force: true });
    await search(page, "people eating on a ship", "harbour.txt");
    await page.locator(".result").first().getByRole("button", { name: /heat map/ }).click();
    await page.locator("td.best").first().waitFor();
    // What plain hosts do not give.
    assert.equal(await page.evaluate(() => globalThis.crossOriginIsolated), true);
    for (const name of ["Benchmark", "Device"]) {
      await page.getByRole("link", { name }).click();
      await page.getByRole("heading", { name, level: 1 }).waitFor();
    }
  } finally {
    await close();
  }
});
