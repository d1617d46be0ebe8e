// An index on disk: built of 12,000 word meanings in two passes, added to, filtered, searched.
// `node examples/index.mjs "someone who repairs shoes"`.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEngine, createStaticEncoder } from "@maxsim/node";

const text = process.argv[2] ?? "someone who repairs shoes";
const glosses = new URL("../../../crates/encode/assets/wordnet-glosses.tsv", import.meta.url);
const entries = readFileSync(glosses, "utf8").trimEnd().split("\n").map((line) => line.split("\t"));
const directory = mkdtempSync(join(tmpdir(), "maxsim-index-"));
const [encoder, engine] = [await createStaticEncoder(), await createEngine()];

/** Entries as the index takes them: vectors, and metadata to filter by and to show. */
async function batch(some) {
  const { vectors, offsets, dim } = await encoder.encodeDocuments(some.map(([, gloss]) => gloss));
  const metadata = some.map(([word, gloss]) => ({ word, gloss, length: gloss.length }));
  return { documents: { data: vectors, offsets, dim }, metadata };
}

/** Called twice: nothing is kept in between, so that memory does not grow with the corpus. */
async function* documents() {
  for (let first = 0; first + 100 < entries.length; first += 2000) {
    yield batch(entries.slice(first, Math.min(first + 2000, entries.length - 100)));
  }
}

const index = await engine.buildIndex({ path: join(directory, "words"), documents, nbits: 2 });
await index.add(await batch(entries.slice(-100)));
const info = index.info();
console.log(`${info.documents} documents, ${info.bytesPerToken.toFixed(1)} bytes a token`);

const { vectors } = await encoder.encodeQuery(text);
for (const filter of [undefined, "length < 60"]) {
  console.log(filter === undefined ? text : `${text}, ${filter}`);
  // Queries of this encoder are as long as their tokens matter: nothing to normalise.
  const hits = (await index.search(vectors, { topK: 5, filter, normalize: false }))[0];
  for (const { id, score } of hits) {
    const { word, gloss } = await index.metadata(id);
    console.log(`  ${score.toFixed(3)}  ${word}: ${gloss}`);
  }
}
await index.dispose();
await engine.dispose();
rmSync(directory, { recursive: true });
