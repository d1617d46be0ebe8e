// The shortest whole program: texts, a question, the texts best first. `node examples/quickstart.mjs "a question"`.
import { createEngine, createStaticEncoder } from "@maxsim/node";

const texts = ["a recipe for bread", "the submarine dived below the sea", "taxes are due in april"];
const encoder = await createStaticEncoder();
const { vectors, offsets, dim } = await encoder.encodeDocuments(texts);

const engine = await createEngine();
const docs = await engine.corpus({ data: vectors, offsets, dim, normalize: false });

const query = await encoder.encodeQuery(process.argv[2] ?? "ships under water");
const { scores, indices, argmax } = await docs.search(query.vectors, { topK: 3, explain: true });
for (const [rank, document] of indices.entries()) {
  const { tokens } = await encoder.encodeDocuments([texts[document]]);
  const winners = query.tokens.map((token, i) => `${token}→${tokens[argmax[rank * query.tokens.length + i]] ?? "nothing"}`);
  console.log(`${scores[rank].toFixed(3)}  ${texts[document]}  (${winners.join(", ")})`);
}
await engine.dispose();
