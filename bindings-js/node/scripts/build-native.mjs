// Builds the addon with cargo and puts it where the loader looks: maxsim.<platform>.node beside package.json.
// `--profile dev` builds faster and runs slower. Needs no network once cargo has its dependencies.
import { execFileSync } from "node:child_process";
import { copyFileSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { platformName } from "../dist/load.js";

const packageDir = join(dirname(fileURLToPath(import.meta.url)), "..");
const at = process.argv.indexOf("--profile");
const profile = at < 0 ? "release" : process.argv[at + 1];

const messages = execFileSync(
  "cargo",
  ["build", "--package", "maxsim-node", "--lib", "--profile", profile, "--message-format", "json-render-diagnostics"],
  { cwd: packageDir, stdio: ["ignore", "pipe", "inherit"], encoding: "utf8", maxBuffer: 1 << 28 },
);
const library = messages
  .split("\n")
  .filter((line) => line.startsWith("{"))
  .map((line) => JSON.parse(line))
  .filter((message) => message.reason === "compiler-artifact" && message.target.name === "maxsim_node")
  .flatMap((message) => message.filenames)
  .find((file) => /\.(so|dylib|dll)$/.test(file));
if (library === undefined) throw new Error("cargo built no shared library");

const addon = join(packageDir, `maxsim.${platformName()}.node`);
// A new file takes the old one's place: overwriting it would pull the rug from under a process that has it loaded.
copyFileSync(library, `${addon}.new`);
renameSync(`${addon}.new`, addon);
console.log(addon);
