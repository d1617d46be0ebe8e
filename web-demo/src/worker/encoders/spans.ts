/** Where a tokenizer's tokens stand in the text that they were made of. */

/** What tokenizers put around the letters of a token: the rest of a word, or the space before it. */
const DECORATION = /^(##|Ġ|▁)+/;
/** Characters that the next token may be away from the last one. */
const WINDOW = 48;

/** `[T, 2]`: starts and ends, as `String.prototype.slice` counts; empty for tokens that are not found, such as special ones. */
export function alignTokens(text: string, tokens: readonly string[]): Uint32Array {
  const { folded, origins } = fold(text);
  const spans = new Uint32Array(2 * tokens.length);
  let position = 0;
  tokens.forEach((token, t) => {
    const letters = special(token) ? "" : fold(token.replace(DECORATION, "")).folded;
    const found = letters === "" ? -1 : folded.slice(position, position + WINDOW + letters.length).indexOf(letters);
    if (found >= 0) {
      const start = position + found;
      position = start + letters.length;
      spans.set([origins[start]!, origins[position]!], 2 * t);
    } else {
      spans.fill(origins[position]!, 2 * t, 2 * t + 2);
    }
  });
  return spans;
}

const special = (token: string): boolean => /^(\[.+\]|<.+>)\s*$/.test(token);

/** Without case and accents, as most vocabularies are; `origins[i]` is where character `i` came from. */
function fold(text: string): { folded: string; origins: number[] } {
  let folded = "";
  const origins: number[] = [];
  let at = 0;
  for (const character of text) {
    const plain = character.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
    folded += plain;
    for (let i = 0; i < plain.length; i++) origins.push(at);
    at += character.length;
  }
  origins.push(at);
  return { folded, origins };
}
