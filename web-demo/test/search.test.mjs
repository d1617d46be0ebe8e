// What the page shows for a query, and where it computes.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { choose, idle, missing, NOTES, picture, search, visit } from "./site.mjs";

describe("search", { skip: missing }, () => {
  let at;
  before(async () => (at = await visit({ path: "" })));
  after(() => at?.close());

  test("opens with an answer over ten thousand documents and more", async () => {
    const status = await at.page.getByTestId("status").textContent();
    const [, documents] = /^([\d,]+) texts/.exec(status);
    assert.ok(Number(documents.replace(",", "")) >= 10_000, status);
    assert.match(status, /compared in [\d.]+ ms/);
    assert.match(await at.page.locator(".result h2").first().textContent(), /^snow/);
    assert.equal(await at.page.locator(".result").count(), 10);
  });

  test("answers as one types", async () => {
    await search(at.page, "fear of closed spaces", "claustrophobia");
    // Key by key, without a pause: what counts is the last one.
    await at.page.getByRole("searchbox").fill("");
    await at.page.getByText("Describe what you are looking for.").waitFor();
    await at.page.getByRole("searchbox").pressSequentially("sweet food made by bees");
    await at.page.locator(".result h2").first().filter({ hasText: /honey/ }).waitFor();
    await at.page.waitForURL(/\?q=sweet\+food\+made\+by\+bees/);
  });

  test("marks what matched, and says with what", async () => {
    await search(at.page, "frozen water falling from the sky", "snow");
    const first = at.page.locator(".result").first();
    assert.deepEqual(await first.locator("mark").allTextContents(), ["falling", "clouds", "ice"]);
    assert.equal(await first.locator(".text").textContent(), "precipitation falling from clouds in the form of ice crystals");
    const reasons = await first.locator(".why li").allTextContents();
    assert.ok(reasons.some((reason) => /frozen.*ice/.test(reason)), reasons.join());
    // The strongest match is the most visible one.
    const strengths = await first.locator("mark").evaluateAll((marks) => marks.map((mark) => Number(mark.style.getPropertyValue("--strength"))));
    assert.equal(Math.max(...strengths), strengths[0]);
    assert.ok(strengths[2] < strengths[0]);
    await picture(at.page, "search");
  });

  test("shows all similarities, whose best per row add up to the score", async () => {
    const first = at.page.locator(".result").first();
    await first.getByRole("button", { name: /heat map/ }).click();
    const map = first.getByRole("region", { name: /Similarities/ });
    await map.locator("td.best").first().waitFor();
    assert.deepEqual(await map.locator("thead th").allTextContents(), "precipitation falling from clouds in the form of ice crystals".split(" "));
    assert.deepEqual(await map.locator("tbody th").allTextContents(), "frozen water falling from the sky".split(" "));
    const best = await map.locator("td.best").evaluateAll((cells) => cells.map((cell) => parseFloat(cell.firstChild.textContent)));
    const score = Number((await first.locator(".number").textContent()).replace("Score ", ""));
    assert.ok(Math.abs(best.reduce((sum, value) => sum + value, 0) - score) < 0.05, `${best} and ${score}`);
    await picture(first, "heat-map");
    await first.getByRole("button", { name: /heat map/ }).click();
    await map.waitFor({ state: "detached" });
  });

  test("says so when no word is known", async () => {
    await at.page.getByRole("searchbox").fill("☃☃☃");
    await at.page.getByText("No word of “☃☃☃” is known").waitFor();
  });

  test("starts on the CPU where the GPU is software, and finds the same on both", async () => {
    const engine = at.page.getByTestId("engine");
    await search(at.page, "frozen water", "");
    assert.match(await engine.textContent(), /^CPU · WebAssembly, simd128/);
    // A small collection: software GPUs are slow.
    await choose(at.page, ["harbour.txt", NOTES]);
    await search(at.page, "repairing a boat's motor", "harbour.txt");
    const found = () => at.page.locator(".result .text").allTextContents();
    const scores = () => at.page.locator(".number").allTextContents();
    const [onCpu, cpuScores] = [await found(), await scores()];
    await at.page.getByRole("radio", { name: "WebGPU" }).check({ force: true });
    await engine.filter({ hasText: /^WebGPU · / }).waitFor({ timeout: 60_000 });
    assert.deepEqual([await found(), await scores()], [onCpu, cpuScores]);
    await at.page.getByRole("radio", { name: "CPU" }).check({ force: true });
    await idle(at.page);
    await engine.filter({ hasText: /^CPU · / }).waitFor({ timeout: 60_000 });
  });

  test("goes on when the GPU goes away, and can have it back", async () => {
    const engine = at.page.getByTestId("engine");
    const gpu = at.page.getByRole("radio", { name: "WebGPU" });
    await gpu.check({ force: true });
    await engine.filter({ hasText: /^WebGPU · / }).waitFor({ timeout: 60_000 });
    const client = await at.page.context().newCDPSession(at.page);
    await client.send("Browser.crashGpuProcess");
    await search(at.page, "bread for the crew", "harbour.txt");
    await engine.filter({ hasText: /^CPU · WebAssembly/ }).waitFor({ timeout: 60_000 });
    await at.page.getByText("The GPU went away. Searching goes on on the CPU.").waitFor();
    assert.ok(await at.page.getByRole("radio", { name: "CPU" }).isChecked());
    await gpu.check({ force: true });
    await engine.filter({ hasText: /^WebGPU · / }).waitFor({ timeout: 60_000 });
    await at.page.getByRole("radio", { name: "CPU" }).check({ force: true });
  });
});

test("works without WebGPU, and says why", { skip: missing }, async () => {
  const { page, close } = await visit({ gpu: false, path: "?q=fear+of+closed+spaces" });
  try {
    assert.match(await page.locator(".result h2").first().textContent(), /^claustrophobia/);
    assert.match(await page.getByTestId("engine").textContent(), /^CPU/);
    assert.ok(await page.getByRole("radio", { name: "WebGPU" }).isDisabled());
    await page.getByRole("link", { name: "Device" }).click();
    await page.getByText("WebGPU is not used: this browser offers no WebGPU adapter here.").waitFor();
    await page.getByText("simd128", { exact: true }).waitFor();
  } finally {
    await close();
  }
});
