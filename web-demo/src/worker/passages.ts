/** Texts cut into passages: what a search finds. */

export interface Passage {
  readonly text: string;
  /** Line of the text in which it starts, from 1. */
  readonly line: number;
}

/** Paragraphs shorter than this many characters are joined with the next one. */
const SHORT = 160;
/** Longer ones are cut, between sentences where that is possible. */
const LONG = 640;

/** Passages of `text`, in order; together they have all of its words. */
export function passages(text: string): Passage[] {
  const found: Passage[] = [];
  let joined: Passage | undefined;
  const finish = (): void => {
    if (joined) found.push(joined);
    joined = undefined;
  };
  for (const paragraph of paragraphs(text)) {
    if (joined && joined.text.length + paragraph.text.length > LONG) finish();
    joined = joined ? { text: `${joined.text}\n${paragraph.text}`, line: joined.line } : paragraph;
    if (joined.text.length < SHORT) continue;
    const { text, line } = joined;
    joined = undefined;
    for (const part of cut(text)) found.push({ text: part, line });
  }
  finish();
  return found;
}

/** Runs of lines without an empty one between them, each as one line. */
function* paragraphs(text: string): Generator<Passage> {
  let lines: string[] = [];
  let [number, first] = [0, 1];
  for (const line of text.split(/\r\n|\r|\n/)) {
    number++;
    if (line.trim() !== "") {
      if (lines.length === 0) first = number;
      lines.push(line.trim());
    } else if (lines.length > 0) {
      yield { text: lines.join(" "), line: first };
      lines = [];
    }
  }
  if (lines.length > 0) yield { text: lines.join(" "), line: first };
}

function* cut(text: string): Generator<string> {
  let rest = text;
  while (rest.length > LONG) {
    const at = end(rest.slice(0, LONG));
    yield rest.slice(0, at).trim();
    rest = rest.slice(at).trim();
  }
  if (rest !== "") yield rest;
}

/** Where to end a passage: after the last sentence, else the last word, else between two characters. */
function end(text: string): number {
  const sentence = Math.max(...[". ", "! ", "? ", "。", "\n"].map((mark) => text.lastIndexOf(mark) + 1));
  if (sentence > LONG / 3) return sentence;
  const word = text.lastIndexOf(" ");
  if (word > 0) return word;
  // Not between the halves of a surrogate pair.
  return /[\ud800-\udbff]$/.test(text) ? text.length - 1 : text.length;
}
