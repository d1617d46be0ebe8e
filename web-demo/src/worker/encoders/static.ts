/** The encoder that comes with `@maxsim/web`: a table look-up, there at once. */
import { createStaticEncoder } from "@maxsim/web";
import type { Encoder } from "./encoder.ts";

export async function staticEncoder(onProgress: (fraction: number) => void): Promise<Encoder> {
  const encoder = await createStaticEncoder({ onProgress: (loaded, total) => onProgress(total > 0 ? loaded / total : 0) });
  return {
    name: "built-in table",
    fingerprint: encoder.name,
    dim: encoder.dim,
    batch: 1000,
    encodeQuery: (text) => encoder.encodeQuery(text),
    encodeDocuments: (texts, signal) => encoder.encodeDocuments(texts, { signal }),
    dispose: () => {},
  };
}
