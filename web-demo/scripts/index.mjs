// Builds an index of word meanings for the site: public/meanings.mxi, and what the page has to know of it.
//
//     node scripts/index.mjs                        the 12,000 meanings that the page has anyway
//     node scripts/index.mjs /usr/share/wordnet     all 117,659 of WordNet 3.0 (Debian: apt-get install wordnet-base)
//
// Needs the command `maxsim`: $MAXSIM, or the one that cargo builds here.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const GLOSSES = at("../../crates/encode/assets/wordnet-glosses.tsv");
const PARTS = ["noun", "verb", "adj", "adv"];

/** Synsets of a file of WordNet's database (wndb(5WN)): the words, and the definition without its examples. */
function synsets(file) {
  return readFileSync(file, "latin1").split("\n").filter((line) => /^\d/.test(line)).map((line) => {
    const [data, gloss] = line.split(" | ");
    const fields = data.split(" ");
    const words = Array.from({ length: parseInt(fields[3], 16) }, (_, i) => fields[4 + 2 * i].replace(/\(\w+\)$/, "").replaceAll("_", " "));
    return { word: words.join(", "), text: gloss.split('; "')[0].trim() };
  });
}

const folder = process.argv[2];
const meanings = folder
  ? PARTS.flatMap((part) => synsets(join(folder, `data.${part}`)))
  : readFileSync(GLOSSES, "utf8").trimEnd().split("\n").map((line) => {
      const [word, text] = line.split("\t");
      return { word, text };
    });

const built = join(process.env.CARGO_TARGET_DIR ?? at("../../target"), "release/maxsim");
const command = process.env.MAXSIM ?? (existsSync(built) ? built : undefined);
const maxsim = (...args) =>
  command
    ? execFileSync(command, args, { stdio: "inherit" })
    : execFileSync("cargo", ["run", "--release", "--quiet", "--package", "maxsim-cli", "--", ...args], { cwd: at("../.."), stdio: "inherit" });

const scratch = mkdtempSync(join(tmpdir(), "maxsim-meanings-"));
try {
  const [texts, rows, index, file] = [join(scratch, "texts"), join(scratch, "rows"), join(scratch, "index"), at("../public/meanings.mxi")];
  writeFileSync(texts, meanings.map(({ text }) => `${text}\n`).join(""));
  writeFileSync(rows, meanings.map((meaning) => `${JSON.stringify(meaning)}\n`).join(""));
  // Two bits a dimension, and a quarter of the usual centroids: what is read at once stays small.
  const centroids = 2 ** Math.floor(Math.log2(4 * Math.sqrt(14 * meanings.length)));
  maxsim("index", "build", index, "--text", texts, "--metadata", rows, "--nbits", "2", "--centroids", String(centroids), "--backend", "cpu");
  maxsim("index", "pack", index, file, "--backend", "cpu");
  const { size: bytes } = statSync(file);
  writeFileSync(at("../public/meanings.json"), `${JSON.stringify({ documents: meanings.length, bytes, centroids })}\n`);
} finally {
  rmSync(scratch, { recursive: true });
}
