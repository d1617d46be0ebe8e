import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Answer, Hit, Similarities } from "../protocol.ts";
import { library } from "../store.ts";

/** Two digits, without a leading zero. */
const short = (value: number): string => value.toFixed(2).replace(/^-?0\.00$/, "0").replace(/^(-?)0\./, "$1.");

/** Query tokens down, document tokens across: the best of every row is what counts. */
export function HeatMap({ found, hit }: { found: Answer; hit: Hit }): JSX.Element {
  const [map, setMap] = useState<Similarities>();
  useEffect(() => {
    let wanted = true;
    const { version, collection, query, model } = found;
    void library.similarities({ version, collection, query, model }, hit.document).then((similarities) => {
      if (wanted && similarities) setMap(similarities);
    });
    return () => void (wanted = false);
  }, [found, hit.document]);
  // As high as it will be.
  if (!map) return <div class="heat-map" style={{ height: `${7.5 + 1.9 * found.tokens.length}rem` }} />;
  const { rows, columns, values, winners } = map;
  const most = Math.max(1e-6, ...values);
  return (
    <div class="heat-map" role="region" aria-label={`Similarities of the query with ${hit.title}`} tabIndex={0}>
      <table>
        <caption class="hidden">Rows are tokens of the query, columns tokens of the text. The best match of each row adds to the score.</caption>
        <thead>
          <tr>
            <td />
            {columns.map((column, t) => <th key={t} scope="col"><span>{column}</span></th>)}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, s) => (
            <tr key={s}>
              <th scope="row">{row}</th>
              {columns.map((_, t) => {
                const value = values[s * columns.length + t]!;
                const best = winners[s] === t;
                return (
                  <td key={t} class={best ? "best" : undefined} style={{ "--heat": Math.max(0, value / most).toFixed(3) }}>
                    {short(value)}{best && <span class="hidden"> best</span>}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
