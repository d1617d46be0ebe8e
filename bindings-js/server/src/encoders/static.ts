/** The encoder embedded in `@maxsim/node`: a table, no model. */
import { createStaticEncoder } from "@maxsim/node";
import { concat, type Encoded, type Encoder } from "./encoder.js";

/** The static encoder, `concurrency` calls at a time. */
export async function staticEncoder(concurrency: number): Promise<Encoder> {
  const table = await createStaticEncoder();
  return {
    name: table.name,
    dim: table.dim,
    // About 10 ms of one core.
    maxBatch: 64 * 1024,
    concurrency,
    failure: undefined,
    async encode(kind, texts, signal) {
      if (kind === "document") return table.encodeDocuments(texts, { signal });
      const queries: Encoded[] = [];
      for (const text of texts) {
        const { vectors } = await table.encodeQuery(text, { signal });
        queries.push({ vectors, offsets: Uint32Array.of(0, vectors.length / table.dim) });
      }
      return concat(queries);
    },
    async close() {},
  };
}
