/** Which parts of a text answer which parts of a query. */
import type { Hit, Match } from "./protocol.ts";

export interface Piece {
  readonly text: string;
  /** How strong its best match is, from 0 (nothing matches it) to 1. */
  readonly strength: number;
  readonly matches: readonly Match[];
}

/** Matches weaker than this are not shown: every token matches something. */
const FAINT = 0.12;

/** How strong a match is among those of an answer, from 0 to 1. */
export type Scale = (match: Match) => number;

/** Models differ: with some the weakest match has a similarity of 0, with others of 0.6. */
export function scale(hits: readonly Hit[]): Scale {
  const all = hits.flatMap(({ matches }) => matches.map(({ similarity }) => similarity));
  const [least, most] = [Math.max(0, Math.min(...all)), Math.max(...all)];
  return ({ start, end, similarity }) => {
    if (end <= start || similarity <= 0) return 0;
    const strength = most > least ? (similarity - least) / (most - least) : 1;
    return strength < FAINT ? 0 : strength;
  };
}

/** The text in pieces. */
export function pieces({ text, matches }: Pick<Hit, "text" | "matches">, strengthOf: Scale): Piece[] {
  const at = new Map<number, Match[]>();
  for (const match of matches) if (strengthOf(match) > 0) at.set(match.start, [...(at.get(match.start) ?? []), match]);
  const found: Piece[] = [];
  let position = 0;
  const plain = (end: number): void => {
    if (end > position) found.push({ text: text.slice(position, end), strength: 0, matches: [] });
  };
  for (const [start, here] of [...at].sort(([a], [b]) => a - b)) {
    if (start < position) continue;
    plain(start);
    position = here[0]!.end;
    found.push({ text: text.slice(start, position), strength: Math.max(...here.map(strengthOf)), matches: here });
  }
  plain(text.length);
  return found;
}

/** Whether a token is one of the model's own, such as `[MASK]`. */
export const isSpecial = (token: string): boolean => /^(\[.+\]|<.+>)$/.test(token);
