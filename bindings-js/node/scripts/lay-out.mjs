// Lays @maxsim/node out as it is published: `node scripts/lay-out.mjs FOLDER [BINARY.node …]`, by default with the binaries that
// lie beside package.json.
//
//   FOLDER/node                  the package, without binaries; an optional dependency for each of them
//   FOLDER/node-<platform>       a binary, which npm installs where `os`, `cpu` and `libc` fit
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { PLATFORMS } from "./platforms.mjs";

const source = join(dirname(fileURLToPath(import.meta.url)), "..");
const licences = ["LICENSE-APACHE", "LICENSE-MIT"];
const [folder, ...given] = process.argv.slice(2);
if (folder === undefined) {
  console.error("usage: node scripts/lay-out.mjs FOLDER [BINARY.node …]");
  process.exit(2);
}
const binaries = given.length > 0 ? given : readdirSync(source).filter((name) => name.endsWith(".node")).map((name) => join(source, name));
const manifest = JSON.parse(readFileSync(join(source, "package.json"), "utf8"));
const write = (path, value) => writeFileSync(path, `${JSON.stringify(value, undefined, 2)}\n`);
const into = (name) => {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  for (const licence of licences) copyFileSync(join(source, "../..", licence), join(path, licence));
  return path;
};

const optionalDependencies = {};
for (const binary of binaries) {
  const platform = /^maxsim\.(.+)\.node$/.exec(basename(binary))?.[1];
  if (platform === undefined || !(platform in PLATFORMS)) {
    throw new Error(`${binary}: expected maxsim.PLATFORM.node, PLATFORM one of ${Object.keys(PLATFORMS).join(", ")}`);
  }
  const { target, ...fits } = PLATFORMS[platform];
  const name = `${manifest.name}-${platform}`;
  const path = into(`node-${platform}`);
  copyFileSync(binary, join(path, basename(binary)));
  const { version, license, repository, engines } = manifest;
  write(join(path, "package.json"), {
    name, version, description: `The binary of ${manifest.name} for ${target}`, license, repository, engines,
    main: basename(binary), files: [basename(binary), ...licences], ...fits,
  });
  writeFileSync(join(path, "README.md"), `# ${name}\n\nThe binary of [${manifest.name}](https://www.npmjs.com/package/${manifest.name}) for \`${target}\`, which depends on it.\n`);
  optionalDependencies[name] = version;
}

const path = into("node");
if (!existsSync(join(source, "dist/index.js"))) throw new Error("no dist/: run `npm run build:ts` first");
cpSync(join(source, "dist"), join(path, "dist"), { recursive: true });
copyFileSync(join(source, "README.md"), join(path, "README.md"));
const { scripts: _, files, ...rest } = manifest;
write(join(path, "package.json"), { ...rest, files: files.filter((name) => !name.endsWith(".node")), optionalDependencies });
console.log(["node", ...Object.keys(optionalDependencies).map((name) => name.split("/")[1])].map((name) => join(folder, name)).join("\n"));
