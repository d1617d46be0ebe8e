/** Writes the service worker when the site is built: it has to know which files there are. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

/** Loaded by few visitors and large: kept when they are used, not before. Of the package's modules that is what scores differently, and
 * indexes. */
const ON_DEMAND = /(^|\/)(ort-|((cpu|gpu)-all|plaid)-.*\.wasm$)|^meanings\./;

export function offline(): Plugin {
  let [out, source] = ["", ""];
  return {
    name: "offline",
    apply: "build",
    configResolved(config) {
      // Workers are built with the same plugins, into the same folder.
      out = join(config.root, config.build.outDir);
      source = join(config.root, "src/service-worker.js");
    },
    closeBundle: {
      order: "post",
      handler() {
        const files = readdirSync(out, { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => join(entry.parentPath, entry.name).slice(out.length + 1).replaceAll("\\", "/"))
          .filter((file) => file !== "sw.js" && !ON_DEMAND.test(file))
          .sort();
        const hash = createHash("sha256");
        for (const file of files) hash.update(file).update(readFileSync(join(out, file)));
        const facts = `const VERSION = ${JSON.stringify(hash.digest("hex").slice(0, 16))};\nconst FILES = ${JSON.stringify(files)};\n`;
        writeFileSync(join(out, "sw.js"), facts + readFileSync(source, "utf8"));
      },
    },
  };
}
