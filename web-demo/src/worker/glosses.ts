/** Twelve thousand English nouns and what they mean. */
import type { Document } from "./collection.ts";

const URL_OF_TEXT = new URL("../../../crates/encode/assets/wordnet-glosses.tsv", import.meta.url).href;

export async function glosses(): Promise<{ id: string; documents: Document[] }> {
  const response = await fetch(URL_OF_TEXT);
  if (!response.ok) throw new Error(`the glosses cannot be loaded: ${response.status} ${response.statusText}`);
  const bytes = await response.arrayBuffer();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).subarray(0, 8);
  const lines = new TextDecoder().decode(bytes).trimEnd().split("\n");
  const documents = lines.map((line) => {
    const [title = "", text = ""] = line.split("\t");
    return { title, place: "", text };
  });
  return { id: `wordnet-${Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("")}`, documents };
}
