// A ColBERT model that the visitor brings: one small enough to be written by hand.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { writeModel } from "../../bindings-js/server/testing/onnx.mjs";
import { choose, idle, missing, notices, results, search, visit } from "./site.mjs";

describe("a model", { skip: missing }, () => {
  const folder = mkdtempSync(join(tmpdir(), "maxsim-model-"));
  let at, server, hold;
  before(async () => {
    writeModel(join(folder, "tiny-colbert"));
    writeModel(join(folder, "broken"), { model: "no model" });
    server = createServer(async (request, response) => {
      const file = join(folder, new URL(request.url, "http://localhost").pathname);
      const headers = { "Access-Control-Allow-Origin": "*" };
      if (!existsSync(file)) return response.writeHead(404, headers).end();
      await hold;
      const bytes = readFileSync(file);
      response.writeHead(200, { ...headers, "Content-Type": "application/octet-stream", "Content-Length": bytes.length }).end(bytes);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    at = await visit({ gpu: false, path: "" });
    await choose(at.page, ["ice.txt", "Ice under the sea."], ["tax.txt", "The tax on a ship."]);
  });
  after(async () => {
    await at?.close();
    server.close();
    rmSync(folder, { recursive: true });
  });
  const chip = () => at.page.getByRole("button", { name: /^Model: / });
  const load = async (name) => {
    await chip().click();
    await at.page.getByRole("textbox", { name: /Address/ }).fill(name.includes(":") ? name : `http://127.0.0.1:${server.address().port}/${name}`);
    await at.page.getByRole("button", { name: "Load", exact: true }).click();
  };
  const ranked = () => at.page.getByTestId("status").filter({ hasText: "ranked by tiny-colbert" }).waitFor({ timeout: 30_000 });

  test("is loaded from an address, and ranks what the table finds", async () => {
    await load("tiny-colbert");
    await idle(at.page);
    assert.equal(await chip().textContent(), "Model: tiny-colbert");
    await at.page.getByRole("searchbox").fill("ice");
    await ranked();
    // Vectors are the same wherever a word stands, so that "ice" meets itself with similarity 1.
    const first = at.page.locator(".result").first();
    assert.match(await first.locator(".text").textContent(), /^Ice under the sea/);
    assert.equal(await first.locator("mark").first().textContent(), "Ice");
    assert.match(await first.locator(".why li").first().textContent(), /ice.*ice.*1\.00/i);
    await first.getByRole("button", { name: /heat map/ }).click();
    await first.locator("td.best").first().waitFor();
    const rows = await first.locator("tbody th").allTextContents();
    assert.deepEqual(rows.slice(0, 4), ["[CLS]", "[Q]", "ice", "[SEP]"]);
    const score = Number((await first.locator(".number").textContent()).replace("Score ", ""));
    const best = await first.locator("td.best").evaluateAll((cells) => cells.map((cell) => parseFloat(cell.firstChild.textContent)));
    assert.ok(Math.abs(best.reduce((sum, value) => sum + value, 0) - score) < 0.05, `${best} and ${score}`);
  });

  test("ranks the word meanings, too, and is left again", async () => {
    await at.page.getByRole("radio", { name: /word meanings/ }).check({ force: true });
    await search(at.page, "a ship", "");
    await at.page.getByTestId("status").filter({ hasText: "the best 100 of 12,000 texts ranked by tiny-colbert" }).waitFor();
    await chip().click();
    await at.page.getByRole("button", { name: "Without tiny-colbert" }).click();
    await idle(at.page);
    assert.equal(await chip().textContent(), "Model: built-in table");
    await at.page.getByTestId("status").filter({ hasText: "12,000 texts" }).filter({ hasNotText: "ranked" }).waitFor();
  });

  test("is loaded from a local folder", async () => {
    await at.page.getByTestId("model-folder").setInputFiles(join(folder, "tiny-colbert"));
    await idle(at.page);
    assert.equal(await chip().textContent(), "Model: tiny-colbert");
    await at.page.getByRole("searchbox").fill("sea");
    await ranked();
  });

  test("can be cancelled, and what was there stays", async () => {
    let release;
    hold = new Promise((resolve) => (release = resolve));
    await load("broken");
    await at.page.getByRole("button", { name: "Cancel" }).click();
    await idle(at.page);
    release();
    assert.equal(await chip().textContent(), "Model: tiny-colbert");
    await at.page.getByRole("searchbox").fill("under");
    await ranked();
  });

  test("that is none, is broken or cannot be reached is refused with the reason", async () => {
    const refused = async (name, why) => {
      await load(name);
      await idle(at.page);
      const [notice] = (await notices(at.page)).slice(-1);
      assert.match(notice, why);
      assert.equal(await chip().textContent(), "Model: tiny-colbert");
    };
    await refused("nowhere", /^nowhere: expected one of .*model\.onnx, got none$/);
    await refused("broken", /^broken\/model\.onnx: /);
    await refused("http://127.0.0.1:1/model", /cannot be loaded: there is no connection, or its server does not let other pages read it/);
    await refused("ftp://example.org/model", /expected an address \(https:\/\/…\) or owner\/name/);
  });

  test("is there again without a connection to where it came from", async () => {
    await at.page.evaluate(() => navigator.serviceWorker.ready);
    const address = `http://127.0.0.1:${server.address().port}/tiny-colbert`;
    server.close();
    server.closeAllConnections();
    await assert.rejects(fetch(address));
    await at.page.goto(`${at.site.origin}?q=ice`);
    await results(at.page);
    assert.equal(await at.page.evaluate(() => globalThis.crossOriginIsolated), true);
    await load(address);
    await idle(at.page);
    assert.equal(await chip().textContent(), "Model: tiny-colbert");
    await ranked();
  });
});
