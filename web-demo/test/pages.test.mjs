// The other pages, and what holds for all: accessibility, keyboard, steadiness.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { choose, idle, missing, NOTES, picture, results, search, visit } from "./site.mjs";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

describe("pages", { skip: missing }, () => {
  let at;
  before(async () => (at = await visit({ gpu: false, path: "" })));
  after(() => at?.close());
  const go = async (name) => {
    await at.page.getByRole("link", { name }).click();
    await at.page.getByRole("heading", { name: name === "Search" ? /Search by meaning/ : name, level: 1 }).waitFor();
  };

  test("device: what runs, and what it takes", async () => {
    await go("Device");
    const fact = (name) => at.page.locator("dl div").filter({ has: at.page.locator("dt", { hasText: new RegExp(`^${name}$`) }) }).locator("dd").textContent();
    await at.page.locator("dl").first().waitFor();
    assert.match(await fact("Backend"), /^CPU/);
    assert.equal(await fact("SIMD level"), "simd128");
    assert.match(await fact("Kernel"), /simd128/);
    assert.match(await fact("Corpora on the engine"), /^2\d\.\d MiB$/);
    assert.match(await fact("Kept as"), /^int8, 128 dimensions$/);
    await picture(at.page, "device");
  });

  test("benchmark: every backend, and a plot", async () => {
    await go("Benchmark");
    await at.page.getByRole("button", { name: "Run" }).click();
    await at.page.getByText("Done").waitFor({ timeout: 120_000 });
    const rows = await at.page.locator(".figures tbody tr").evaluateAll((all) => all.map((row) => [...row.children].map((cell) => cell.textContent)));
    const of = (runner) => rows.filter(([name]) => name === runner);
    for (const runner of ["CPU, SIMD", "CPU, no SIMD", "Plain JavaScript"]) {
      assert.equal(of(runner).length, 3, runner);
      for (const [, , median] of of(runner)) assert.ok(parseFloat(median) > 0);
    }
    assert.match(await at.page.locator(".remark").textContent(), /^WebGPU: .*not supported/);
    // Vectors against a loop: less than twice as fast would be a mistake, even on a busy machine.
    const largest = (runner) => parseFloat(of(runner).at(-1)[2]);
    assert.ok(largest("CPU, SIMD") * 2 < largest("Plain JavaScript"), JSON.stringify(rows));
    await at.page.locator(".plot canvas").waitFor();
    await picture(at.page, "benchmark");
  });

  test("axe finds nothing, in both colour schemes and on every page", async () => {
    await go("Search");
    await at.page.locator(".result").first().getByRole("button", { name: /heat map/ }).click();
    await at.page.locator("td.best").first().waitFor();
    await at.page.addScriptTag({ path: AXE });
    const check = async (what) => {
      const found = await at.page.evaluate(async () => {
        const { violations, passes } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
        return { passes: passes.length, violations: violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`) };
      });
      assert.deepEqual(found.violations, [], what);
      assert.ok(found.passes > 10);
    };
    for (const colorScheme of ["light", "dark"]) {
      await at.page.emulateMedia({ colorScheme });
      for (const name of ["Device", "Benchmark", "Search"]) {
        await go(name);
        await check(`${name}, ${colorScheme}`);
      }
      // Files, messages of both kinds, and the dialog.
      await choose(at.page, ["harbour.txt", NOTES], ["empty.txt", ""]);
      await check(`files, ${colorScheme}`);
      await at.page.getByRole("button", { name: /^Model/ }).click();
      await check(`dialog, ${colorScheme}`);
      await at.page.keyboard.press("Escape");
      await at.page.getByRole("button", { name: "Remove harbour.txt" }).click();
      await idle(at.page);
      await at.page.getByRole("radio", { name: /word meanings/ }).check({ force: true });
    }
    await at.page.emulateMedia({ colorScheme: "light" });
  });

  test("all of it by keyboard", async () => {
    // Asked for long before it is needed: the browser is told not to open its own, and nobody says when it has heard.
    const chosen = at.page.waitForEvent("filechooser", { timeout: 120_000 });
    await at.page.goto(`${at.site.origin}?q=ships`);
    await results(at.page);
    const focused = () => at.page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.value);
    await at.page.keyboard.press("Tab");
    assert.equal(await focused(), "Skip to content");
    await at.page.keyboard.press("/");
    await at.page.keyboard.type("fear of closed spaces");
    await at.page.locator(".result h2").first().filter({ hasText: "claustrophobia" }).waitFor();
    // On to the first heat map, wherever it comes.
    for (let i = 0; i < 20 && !/heat map/.test(await focused()); i++) await at.page.keyboard.press("Tab");
    await at.page.keyboard.press("Enter");
    await at.page.locator("td.best").first().waitFor();
    // Back to the collections: one stop, arrows within.
    for (let i = 0; i < 20 && (await focused()) !== "glosses"; i++) await at.page.keyboard.press("Shift+Tab");
    await at.page.keyboard.press("ArrowLeft");
    await at.page.getByText("There is nothing to search yet").waitFor();
    for (let i = 0; i < 5 && (await focused()) !== "choose them"; i++) await at.page.keyboard.press("Tab");
    assert.equal(await focused(), "choose them");
    await at.page.keyboard.press("Enter");
    await (await chosen).setFiles({ name: "harbour.txt", mimeType: "text/plain", buffer: Buffer.from(NOTES) });
    await at.page.getByRole("radio", { name: "Your files (1)" }).waitFor();
    await search(at.page, "people eating on a ship", "harbour.txt");
  });

  test("phone and dark", async () => {
    await at.page.goto(at.site.origin);
    await results(at.page);
    await at.page.setViewportSize({ width: 390, height: 844 });
    await at.page.emulateMedia({ colorScheme: "dark" });
    // Nothing is wider than the screen.
    assert.equal(await at.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);
    await picture(at.page, "phone");
    for (const name of ["Benchmark", "Device"]) {
      await go(name);
      assert.equal(await at.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, name);
    }
  });
});

test("the page stays responsive and steady", { skip: missing }, async () => {
  const { page, site, close } = await visit({ gpu: false, path: undefined });
  try {
    await page.addInitScript(() => {
      globalThis.shifts = [];
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) if (!entry.hadRecentInput) globalThis.shifts.push(entry.value);
      }).observe({ type: "layout-shift", buffered: true });
    });
    const client = await page.context().newCDPSession(page);
    const events = [];
    client.on("Tracing.dataCollected", ({ value }) => events.push(...value));
    await client.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: ["toplevel", "devtools.timeline"] } });
    await page.goto(site.origin);
    await results(page);
    const shifts = await page.evaluate(() => globalThis.shifts);
    await page.getByRole("searchbox").fill("");
    await page.getByRole("searchbox").pressSequentially("someone who repairs shoes", { delay: 30 });
    await page.locator(".result h2").first().filter({ hasText: /cobbler|shoe/ }).waitFor();
    await page.locator(".result").first().getByRole("button", { name: /heat map/ }).click();
    await page.locator("td.best").first().waitFor();
    // 2 MB, some five thousand passages; from disk, as the browser's main thread receives what tests send it.
    const long = join(mkdtempSync(join(tmpdir(), "maxsim-demo-")), "long.txt");
    writeFileSync(long, NOTES.repeat(2200));
    await choose(page, long);
    rmSync(dirname(long), { recursive: true });
    await search(page, "people eating on a ship", "long.txt");
    const complete = new Promise((resolve) => client.once("Tracing.tracingComplete", resolve));
    await client.send("Tracing.end");
    await complete;

    const loaded = events.find(({ name, args }) => name === "CommitLoad" && args.data.url === site.origin);
    // Time on the processor: what other programs take on this machine is not the page's doing.
    const tasks = events.filter(({ name, pid, tid, tdur }) => /RunTask$/.test(name) && pid === loaded.pid && tid === loaded.tid && tdur !== undefined);
    assert.ok(tasks.length > 100, `${tasks.length} tasks were seen`);
    const longest = Math.max(...tasks.map(({ tdur }) => tdur)) / 1000;
    console.log(`longest task of the main thread: ${longest.toFixed(1)} ms of ${tasks.length}`);
    assert.ok(longest <= 50, `${longest} ms`);
    const moved = shifts.reduce((sum, value) => sum + value, 0);
    assert.ok(moved < 0.05, `layout shifts of ${moved}`);
  } finally {
    await close();
  }
});
