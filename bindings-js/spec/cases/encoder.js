// The embedded encoder.
import { equal, ok, rejection, rejects } from "./support.js";

export const encoder = [
  {
    name: "text becomes tokens, spans and vectors",
    async run({ api }) {
      const encoder = await api.createStaticEncoder();
      ok(encoder.name.length > 0 && encoder.dim > 0, "name and dim");
      const query = await encoder.encodeQuery("ships under water");
      equal(query.tokens, ["ships", "under", "water"], "tokens");
      equal([...query.spans], [0, 5, 6, 11, 12, 17], "spans");
      equal([query.vectors.length, query.dim], [3 * encoder.dim, encoder.dim], "vectors");
      const norms = [0, 1, 2].map((t) => Math.hypot(...query.vectors.slice(t * encoder.dim, (t + 1) * encoder.dim)));
      ok(norms.every((norm) => norm > 0 && norm <= 1.0001), "query weights");
    },
  },
  {
    name: "spans are what slice() takes, in any script",
    async run({ api }) {
      const encoder = await api.createStaticEncoder();
      const text = "Ünder 🚢🚢 the café, naïve ﬁsh 𝐚 water";
      const { tokens, spans } = await encoder.encodeQuery(text);
      equal(tokens, tokens.map((_, t) => text.slice(spans[2 * t], spans[2 * t + 1])), "tokens");
      equal([tokens[0].startsWith("Ü"), tokens.at(-1), tokens.includes("café")], [true, "water", true], "tokens");
    },
  },
  {
    name: "documents come packed and can be searched",
    async run({ api, engine }) {
      const encoder = await api.createStaticEncoder();
      const texts = ["a recipe for bread and butter", "the submarine dived below the sea", "", "taxes are due in april"];
      const encoded = await encoder.encodeDocuments(texts);
      const { vectors, offsets, spans, dim, tokens } = encoded;
      equal([offsets.length, offsets[3] - offsets[2], dim], [5, 0, encoder.dim], "offsets");
      equal([tokens.length, spans.length], [offsets[4], 2 * offsets[4]], "tokens and spans");
      equal(tokens.slice(offsets[3], offsets[3] + 2), ["taxes", "are"], "tokens of a text");
      ok(Math.abs(Math.hypot(...vectors.slice(0, dim)) - 1) < 1e-5, "document vectors have unit length");
      const docs = await engine.corpus({ data: vectors, offsets, dim, normalize: false });
      for (const [question, answer] of [["ships under water", 1], ["baking a loaf", 0], ["income tax", 3]]) {
        const { indices } = await docs.search((await encoder.encodeQuery(question)).vectors, { topK: 1 });
        equal(indices[0], answer, question);
      }
      equal((await encoder.encodeDocuments([])).offsets, new Uint32Array(1), "offsets of no texts");
    },
  },
  {
    name: "bad texts and aborted calls",
    async run({ api }) {
      const encoder = await api.createStaticEncoder();
      await rejects(api, encoder.encodeQuery(5), "ERR_VALUE", "text");
      await rejects(api, encoder.encodeDocuments("text"), "ERR_VALUE", "texts");
      await rejects(api, encoder.encodeDocuments(["a", null]), "ERR_VALUE", "texts[1]");
      await rejects(api, encoder.encodeQuery("a", { limit: 5 }), "ERR_VALUE", "limit");
      const signal = AbortSignal.abort("no");
      equal(await rejection(encoder.encodeDocuments(["a"], { signal })), "no", "reason");
    },
  },
];
