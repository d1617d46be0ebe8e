// A headless Chromium with WebGPU in software.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync",
];
/** Without these, headless Chromium has no adapter. */
const SOFTWARE_GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

const EXECUTABLE = process.env.MAXSIM_CHROMIUM ?? "/usr/bin/chromium";

/** Why browsers cannot be tested here, or `undefined`. */
export const missing = existsSync(EXECUTABLE)
  ? undefined
  : `there is no ${EXECUTABLE} (Debian: apt-get install chromium; elsewhere set MAXSIM_CHROMIUM)`;

/** A fresh browser; `gpu: false` has no adapter. */
export async function launch({ gpu = true, flags = [] } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "maxsim-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: EXECUTABLE,
    headless: true,
    args: [...FLAGS, ...(gpu ? SOFTWARE_GPU : []), ...flags],
  });
  return {
    context,
    async open(url) {
      const page = await context.newPage();
      page.on("pageerror", (error) => console.error(`page: ${error}`));
      page.on("console", (message) => {
        if (message.type() === "error") console.error(`console: ${message.text()}`);
      });
      await page.goto(url);
      return page;
    },
    async close() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
