// What npm would publish.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

for (const name of ["api", "node", "server"]) {
  test(`the ${name} package carries its code, its types and both licences`, () => {
    const cwd = fileURLToPath(new URL(`../../${name}`, import.meta.url));
    const shell = process.platform === "win32";
    const [report] = packed(execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd, shell, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }));
    const files = report.files.map(({ path }) => path);
    for (const file of ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "dist/index.js", "dist/index.d.ts"]) {
      assert.ok(files.includes(file), `${file} of ${files}`);
    }
    if (name === "server") assert.ok(files.includes("dist/main.js") && files.includes("Dockerfile"), `a command among ${files}`);
    if (name === "node") assert.ok(files.some((file) => file.endsWith(".node")), `an addon among ${files}`);
    assert.deepEqual(files.filter((file) => /^(src|lib|examples|bench|scripts|test|testing)\//.test(file)), [], "sources");
  });
}

/** The report behind whatever scripts print; a list or, in newer versions of npm, an object by package. */
function packed(output) {
  const report = JSON.parse(output.slice(output.search(/^[[{]/m)));
  return Array.isArray(report) ? report : Object.values(report);
}
