// The built site in a headless Chromium.
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { preview } from "vite";
import { launch, missing as noBrowser } from "../../bindings-js/spec/browser/chromium.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Why the site cannot be tested, or `undefined`. */
export const missing = noBrowser ?? (existsSync(join(root, "dist/sw.js")) ? undefined : "the site is not built (npm run build)");

/** The built site on a port of its own. */
export async function serve() {
  const server = await preview({ root, logLevel: "silent", preview: { port: 0, host: "127.0.0.1" } });
  const { port } = server.httpServer.address();
  return { origin: `http://127.0.0.1:${port}/`, close: () => server.close() };
}

/**
 * A browser on the site; `gpu: false` has no WebGPU adapter. `path`: what to open, or undefined to open nothing yet. `close` ends
 * both.
 */
export async function visit({ gpu = true, path = undefined } = {}) {
  const site = await serve();
  const browser = await launch({ gpu });
  const page = await browser.open(path === undefined ? "about:blank" : site.origin + path);
  if (path !== undefined) await results(page);
  return {
    page,
    site,
    close: async () => {
      await browser.close();
      await site.close();
    },
  };
}

/** Waits for results of the query that stands in the box. */
export const results = (page) => page.locator(".result mark").first().waitFor({ timeout: 60_000 });

/** Types `text` and waits until the best result is `title`. */
export async function search(page, text, title) {
  await page.getByRole("searchbox").fill(text);
  await page.locator(".result h2").first().filter({ hasText: title }).waitFor({ timeout: 30_000 });
}

/** Gives files, `[name, content]` or paths, to the page as a visitor who chooses them does, and waits until they are dealt with. */
export async function choose(page, ...files) {
  await page.getByRole("radio", { name: /Your files/ }).check({ force: true });
  await page.getByTestId("files").setInputFiles(
    files.map((file) => (typeof file === "string" ? file : { name: file[0], mimeType: "", buffer: Buffer.from(file[1]) })),
  );
  await idle(page);
}

/** Waits until nothing is under way. */
export async function idle(page) {
  await page.locator('.progress[data-busy="false"]').waitFor({ state: "attached", timeout: 60_000 }).catch(async (error) => {
    throw new Error(`the page is busy with “${await page.locator(".progress").textContent()}”`, { cause: error });
  });
}

export const notices = (page) => page.locator(".notice p").allTextContents();

/** A picture of a page or a part of it for the documents, where `MAXSIM_SCREENSHOTS` says. */
export async function picture(part, name) {
  const folder = process.env.MAXSIM_SCREENSHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  await part.screenshot({ path: join(folder, `demo-${name}.png`) });
}

export const NOTES = `Harbour diary

The tide came in before dawn. Two trawlers left for the cod banks and the old ferry stayed at the quay, because its engine
would not start. The mechanic said that a fuel pump was broken and that the part would come on Thursday from the city.

In the afternoon the baker brought warm bread to the crew. They ate on the deck and talked about the price of flour, which
had doubled since spring, and about the wedding of the lighthouse keeper's daughter.

At night the fog was so thick that the horn sounded every minute. Nobody slept well, and the harbour master wrote a letter
to the council asking once more for a new radar, as he has done every autumn for eleven years.
`;
