import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { isSpecial, pieces, scale, type Scale } from "../highlight.ts";
import type { Answer, Hit } from "../protocol.ts";
import { answer, collection, query, state } from "../store.ts";
import { HeatMap } from "./heat-map.tsx";

const ROWS = 10;

export function Results(): JSX.Element {
  const found = answer.value;
  // While the other collection is being searched, what is there stays.
  if (!found) return <Waiting />;
  if (found.hits.length === 0) return <Nothing found={found} />;
  const strengthOf = scale(found.hits);
  return (
    <>
      <Announcement found={found} />
      <ol class="results" aria-label="Results">
        {found.hits.map((hit, i) => (
          <Result key={`${found.collection}-${hit.document}`} hit={hit} rank={i} found={found} strengthOf={strengthOf} />
        ))}
      </ol>
    </>
  );
}

function Result({ hit, rank, found, strengthOf }: { hit: Hit; rank: number; found: Answer; strengthOf: Scale }): JSX.Element {
  const [open, setOpen] = useState(false);
  const [pointed, setPointed] = useState<number>();
  const best = found.hits[0]!.score;
  const reasons = hit.matches
    .filter((match) => strengthOf(match) > 0 && !isSpecial(found.tokens[match.query]!))
    .sort((a, b) => b.similarity - a.similarity)
    .slice(0, 6);
  const panel = `why-${rank}`;
  return (
    <li class="result">
      <div class="headline">
        <h2>{hit.title}{hit.place && <small>{hit.place}</small>}</h2>
        <span class="score" title="Sum over the query's tokens of their best match">
          <span class="bar" style={{ width: `${Math.max(2, (100 * hit.score) / Math.max(best, 1e-6))}%` }} />
          <span class="number"><span class="hidden">Score </span>{hit.score.toFixed(2)}</span>
        </span>
      </div>
      <p class="text">
        {pieces(hit, strengthOf).map((piece, i) =>
          piece.matches.length === 0 ? piece.text : (
            <mark key={i} style={{ "--strength": piece.strength.toFixed(2) }} data-pointed={piece.matches.some((match) => match.query === pointed)}
              title={piece.matches.map((match) => `${found.tokens[match.query]}: ${match.similarity.toFixed(2)}`).join(", ")}>
              {piece.text}
            </mark>
          ),
        )}
      </p>
      <div class="why">
        <ul aria-label="Best matches">
          {reasons.map((match) => (
            <li key={match.query} onMouseEnter={() => setPointed(match.query)} onMouseLeave={() => setPointed(undefined)}>
              <span class="from">{found.tokens[match.query]}</span>
              <span aria-hidden="true"> → </span><span class="hidden"> matches </span>
              <span class="to">{hit.text.slice(match.start, match.end)}</span>
              <span class="value">{match.similarity.toFixed(2)}</span>
            </li>
          ))}
        </ul>
        <button type="button" class="plain" aria-expanded={open} aria-controls={panel} onClick={() => setOpen(!open)}>
          {open ? "Hide" : "Show"} heat map<span class="hidden"> of {hit.title} {hit.place}</span>
        </button>
      </div>
      <div id={panel}>{open && <HeatMap found={found} hit={hit} />}</div>
    </li>
  );
}

/** In place of the first results, as large as they will be. */
function Waiting(): JSX.Element {
  return (
    <ol class="results" aria-hidden="true">
      {Array.from({ length: ROWS }, (_, i) => <li key={i} class="result waiting" />)}
    </ol>
  );
}

function Nothing({ found }: { found: Answer }): JSX.Element {
  const why =
    found.documents === 0 ? "There is nothing to search yet: add text files."
    : query.value.trim() === "" ? "Describe what you are looking for."
    : `No word of “${found.query}” is known to the encoder “${state.value?.encoder}”.`;
  return <div class="results nothing"><p role="status">{why}</p></div>;
}

/** For screen readers, when typing rests. */
function Announcement({ found }: { found: Answer }): JSX.Element {
  const [text, setText] = useState("");
  useEffect(() => {
    const where = collection.value === "files" ? "your files" : "word meanings";
    const timer = setTimeout(() => setText(`${found.hits.length} results in ${where}, best: ${found.hits[0]!.title}`), 800);
    return () => clearTimeout(timer);
  }, [found]);
  return <p class="hidden" role="status">{text}</p>;
}
