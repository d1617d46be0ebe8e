// The second stage of a search, with Cohere's own client: `npm install cohere-ai`, then `node cohere.mjs [URL]` with a
// service at URL (`npx @maxsim/server`). What changes for a program that uses Cohere is `environment`.
import { CohereClientV2 } from "cohere-ai";

const environment = process.argv[2] ?? "http://127.0.0.1:8787";
const cohere = new CohereClientV2({ token: process.env.MAXSIM_API_KEY ?? "none", environment });

// What a first stage found, such as BM25 or one vector per text.
const candidates = [
  "a recipe for bread and butter",
  "the submarine dived below the sea",
  "taxes are due in april",
  "the harbour where vessels are built and repaired",
];
const { results } = await cohere.rerank({ model: "any", query: "ships under water", documents: candidates, topN: 3 });
for (const { index, relevanceScore } of results) console.log(`${relevanceScore.toFixed(3)}  ${candidates[index]}`);
