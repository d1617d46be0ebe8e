// Where one thread's time is measured: in Node, and on a page of Chromium. `work` is a function of its own, without what is around
// it, of a clock in milliseconds of processor time (other programs may be using the machine) and of `argument`.
import { readFileSync } from "node:fs";
import { launch } from "../../spec/browser/chromium.mjs";
import { serve } from "../../spec/browser/server.mjs";

export async function inNode(work, argument) {
  // Node fetches no files.
  globalThis.fetch = async (url) => new Response(readFileSync(new URL(url)), { headers: { "content-type": "application/wasm" } });
  const root = new URL("../../", import.meta.url).href;
  return work({ ...argument, root, clock: () => process.cpuUsage().user / 1000 });
}

/** `folders`: as of `serve`. */
export async function inChromium(work, argument, folders) {
  const [server, browser] = [await serve({ folders }), await launch()];
  try {
    const page = await browser.open(`${server.origin}/spec/browser/page.html`);
    const session = await browser.context.newCDPSession(page);
    await session.send("Performance.enable", { timeDomain: "threadTicks" });
    // Seconds the page's thread has run.
    await page.exposeFunction("threadTime", async () => {
      const { metrics } = await session.send("Performance.getMetrics");
      return metrics.find(({ name }) => name === "ThreadTime").value * 1000;
    });
    return await page.evaluate(`(${work})({ ...${JSON.stringify(argument)}, root: "/", clock: () => threadTime() })`);
  } finally {
    await browser.close();
    server.close();
  }
}
