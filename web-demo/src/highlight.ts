/** Which parts of a text answer which parts of a query. */
import type { Hit, Match } from "./protocol.ts";

export interface Piece {
  readonly text: string;
  /** What it adds to the score, relative to the strongest match; 0 if nothing matches it. */
  readonly strength: number;
  readonly matches: readonly Match[];
}

/** Matches weaker than this share of the strongest are not shown: every token matches something. */
const FAINT = 0.12;

/** The text in pieces. `strongest` is the similarity that counts as 1. */
export function pieces({ text, matches }: Pick<Hit, "text" | "matches">, strongest: number): Piece[] {
  const at = new Map<number, Match[]>();
  for (const match of matches) {
    if (match.end <= match.start || match.similarity < FAINT * strongest) continue;
    at.set(match.start, [...(at.get(match.start) ?? []), match]);
  }
  const found: Piece[] = [];
  let position = 0;
  for (const [start, here] of [...at].sort(([a], [b]) => a - b)) {
    if (start < position) continue;
    if (start > position) found.push({ text: text.slice(position, start), strength: 0, matches: [] });
    const strength = Math.min(1, here.reduce((sum, { similarity }) => sum + similarity, 0) / strongest);
    found.push({ text: text.slice(start, here[0]!.end), strength, matches: here });
    position = here[0]!.end;
  }
  if (position < text.length) found.push({ text: text.slice(position), strength: 0, matches: [] });
  return found;
}

/** The largest similarity in any of the hits. */
export const strongest = (hits: readonly Hit[]): number =>
  Math.max(1e-6, ...hits.flatMap(({ matches }) => matches.map(({ similarity }) => similarity)));
