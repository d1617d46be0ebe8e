/** A file's bytes as text, or why they are none. */

export type Decoded = { readonly text: string; readonly encoding: string } | { readonly problem: string };

/** Files beyond this are refused before they are read. */
export const MAX_FILE = 5 * 1024 * 1024;

/** First bytes of formats that people take for text. */
const FORMATS: readonly (readonly [name: string, first: string])[] = [
  ["a PDF", "%PDF-"], ["a Zip archive or an Office document", "PK\x03\x04"], ["an image", "\x89PNG"], ["an image", "\xff\xd8\xff"],
  ["an image", "GIF8"], ["an old Office document", "\xd0\xcf\x11\xe0"], ["compressed", "\x1f\x8b"], ["RTF", "{\\rtf"],
];

/** Control characters that text has no use for. */
const CONTROL = /[\0-\x08\x0e-\x1a\x1c-\x1f]/;

export function decode(bytes: Uint8Array): Decoded {
  if (bytes.length === 0) return { problem: "it is empty" };
  const format = FORMATS.find(([, first]) => [...first].every((character, i) => bytes[i] === character.charCodeAt(0)));
  if (format) return { problem: `it is ${format[0]}, not plain text; save it as text first` };
  const decoded = decodeBytes(bytes);
  if ("problem" in decoded) return decoded;
  return decoded.text.trim() === "" ? { problem: "there is no text in it" } : decoded;
}

function decodeBytes(bytes: Uint8Array): Decoded {
  const as = (encoding: string, fatal: boolean): string | undefined => {
    try {
      return new TextDecoder(encoding, { fatal }).decode(bytes);
    } catch {
      return undefined;
    }
  };
  const binary = { problem: "it is not text" };
  const mark = bytes[0]! * 256 + (bytes[1] ?? 0);
  const encoding = mark === 0xfffe ? "utf-16le" : mark === 0xfeff ? "utf-16be" : "utf-8";
  const text = as(encoding, true);
  if (text !== undefined) return CONTROL.test(text) ? binary : { text, encoding: encoding.toUpperCase() };
  // What is no Unicode is most likely of Windows; every byte means something there, so control characters tell.
  const old = as("windows-1252", false) ?? "";
  return encoding !== "utf-8" || CONTROL.test(old) ? binary : { text: old, encoding: "Windows-1252" };
}
