// What npm would publish.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { platformName } from "../../node/dist/load.js";
import { PLATFORMS } from "../../node/scripts/platforms.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const shell = process.platform === "win32";
const npm = (cwd, ...args) => execFileSync("npm", args, { cwd, shell, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });

/** The modules that a package is imported by. */
const ENTRIES = { api: ["index"], node: ["index"], server: ["index", "main"], maxsim: ["node", "web"], web: ["index"] };

for (const [name, entries] of Object.entries(ENTRIES)) {
  // The browser package is built by a step of its own.
  const skip = name === "web" && !existsSync(`${root}web/dist/gpu.wasm`) && "web/dist is not built";
  test(`the ${name} package carries its code, its types and both licences`, { skip }, () => {
    const [report] = packed(npm(root + name, "pack", "--dry-run", "--json"));
    const files = report.files.map(({ path }) => path);
    const modules = entries.flatMap((entry) => [`dist/${entry}.js`, `dist/${entry}.d.ts`]);
    for (const file of ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json", ...modules]) {
      assert.ok(files.includes(file), `${file} of ${files}`);
    }
    if (name === "server") assert.ok(files.includes("Dockerfile"), `a Dockerfile among ${files}`);
    if (name === "web") assert.ok(["gpu", "cpu-simd", "cpu-scalar", "encoder"].every((module) => files.includes(`dist/${module}.wasm`)), `modules among ${files}`);
    if (name === "node") assert.ok(files.some((file) => file.endsWith(".node")), `an addon among ${files}`);
    assert.deepEqual(files.filter((file) => /^(src|lib|examples|bench|scripts|test|testing)\//.test(file)), [], "sources");
  });
}

test("all packages have the version of the crates, and depend on each other in it", () => {
  const version = /^version = "(.*)"$/m.exec(readFileSync(`${root}../Cargo.toml`, "utf8"))[1];
  for (const name of Object.keys(ENTRIES)) {
    const { version: own, dependencies = {} } = JSON.parse(readFileSync(`${root}${name}/package.json`, "utf8"));
    assert.equal(own, version, name);
    for (const [other, range] of Object.entries(dependencies)) {
      if (other === "maxsim" || other.startsWith("@maxsim/")) assert.equal(range, version, `${name} depends on ${other}`);
    }
  }
  assert.match(readFileSync(`${root}server/Dockerfile`, "utf8"), new RegExp(`^ARG VERSION=${version.replaceAll(".", "\\.")}$`, "m"));
});

test("as it is published, the addon comes from the package of the platform", { skip: !(platformName() in PLATFORMS) && `no binary is published for ${platformName()}` }, () => {
  const directory = mkdtempSync(join(tmpdir(), "maxsim-published-"));
  try {
    const laid = execFileSync(process.execPath, ["node/scripts/lay-out.mjs", directory], { cwd: root, encoding: "utf8" }).trim().split("\n");
    const platform = `node-${platformName()}`;
    assert.ok(laid.includes(join(directory, platform)), `${platform} among ${laid}`);
    const { optionalDependencies, version } = JSON.parse(readFileSync(join(directory, "node/package.json"), "utf8"));
    assert.equal(optionalDependencies[`@maxsim/${platform}`], version);
    const tarball = (cwd) => join(directory, packed(npm(cwd, "pack", "--json", "--pack-destination", directory))[0].filename);
    const tarballs = [tarball(`${root}api`), tarball(join(directory, platform)), tarball(join(directory, "node"))];
    const contents = packed(npm(join(directory, "node"), "pack", "--dry-run", "--json"))[0].files.map(({ path }) => path);
    assert.deepEqual(contents.filter((path) => path.endsWith(".node")), [], "binaries in the package itself");
    const project = join(directory, "project");
    // As a user would, but for where the packages come from.
    npm(directory, "install", "--offline", "--no-audit", "--no-fund", "--prefix", project, ...tarballs);
    const program = `
      import { createEngine } from "@maxsim/node";
      const engine = await createEngine();
      const one = { data: new Float32Array([1, 0]), dim: 2 };
      console.log((await engine.maxsim(one, one)).scores[0]);
    `;
    writeFileSync(join(project, "program.mjs"), program);
    assert.equal(execFileSync(process.execPath, ["program.mjs"], { cwd: project, encoding: "utf8" }).trim(), "1");
    assert.ok(existsSync(join(project, `node_modules/@maxsim/${platform}`)));
  } finally {
    rmSync(directory, { recursive: true });
  }
});

/** The report behind whatever scripts print; a list or, in newer versions of npm, an object by package. */
function packed(output) {
  const report = JSON.parse(output.slice(output.search(/^[[{]/m)));
  return Array.isArray(report) ? report : Object.values(report);
}
