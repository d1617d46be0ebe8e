import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { CollectionName } from "../protocol.ts";
import { answer, collection, page, published, query, reranking, setCollection, state, wanted } from "../store.ts";
import { Files } from "./files.tsx";
import { Model } from "./model.tsx";
import { Results } from "./results.tsx";

const EXAMPLES = ["someone who repairs shoes", "fear of closed spaces", "a place where ships are built", "sweet food made by bees"];

export function SearchPage(): JSX.Element {
  const now = state.value;
  const count = (of: number): string => of.toLocaleString("en");
  const names: Readonly<Partial<Record<CollectionName, string>>> = {
    glosses: `${count(now?.glosses ?? 12000)} word meanings`,
    ...(published ? { index: published.documents > (now?.glosses ?? 12000) ? `All ${count(published.documents)} of WordNet` : "The same, from an index" } : {}),
    files: now && now.files.length > 0 ? `Your files (${now.files.length})` : "Your files",
  };
  return (
    <section aria-labelledby="search-title">
      <div class="intro">
        <h1 id="search-title">Search by meaning, inside this page</h1>
        <p>Every word of your query is compared with every word of every text, as you type. No server is involved.</p>
      </div>
      <SearchBox />
      <ul class="examples" aria-label="Examples">
        {EXAMPLES.map((example) => (
          <li key={example}><button type="button" class="chip" onClick={() => (query.value = example)}>{example}</button></li>
        ))}
      </ul>
      <div class="toolbar">
        <fieldset class="segmented">
          <legend class="hidden">Search in</legend>
          {(Object.keys(names) as CollectionName[]).map((name) => (
            <label key={name}>
              <input type="radio" name="collection" value={name} checked={(wanted.value ?? collection.value) === name} onChange={() => void setCollection(name)} />
              <span>{names[name]}</span>
            </label>
          ))}
        </fieldset>
        <Model />
      </div>
      {collection.value === "files" && <Files />}
      <Status />
      <Results />
    </section>
  );
}

function SearchBox(): JSX.Element {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const listener = (event: KeyboardEvent): void => {
      const typing = event.target instanceof HTMLInputElement && event.target.type !== "radio";
      if (event.key !== "/" || event.ctrlKey || event.metaKey || typing || page.value !== "search") return;
      event.preventDefault();
      input.current?.focus();
      input.current?.select();
    };
    addEventListener("keydown", listener);
    return () => removeEventListener("keydown", listener);
  }, []);
  return (
    <form class="search" role="search" onSubmit={(event) => event.preventDefault()}>
      <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true"><circle cx="10.5" cy="10.5" r="6.5" /><path d="m20 20-4.8-4.8" /></svg>
      <input
        ref={input} type="search" aria-label="Describe what you are looking for" placeholder="Describe what you are looking for"
        autocomplete="off" autocapitalize="off" spellcheck={false} enterkeyhint="search" maxLength={1000} value={query.value}
        onInput={(event) => (query.value = event.currentTarget.value)}
      />
      <kbd aria-hidden="true">/</kbd>
    </form>
  );
}

const ms = (value: number): string => (value < 10 ? value.toFixed(1) : value.toFixed(0));

/** What was done in which time. Screen readers hear it once typing rests. */
function Status(): JSX.Element {
  const found = answer.value;
  const now = state.value;
  if (!found || !now) return <p class="status">&nbsp;</p>;
  return (
    <p class="status" data-testid="status">
      {found.model !== undefined ? (
        <>
          <span>
            the best {found.candidates} of {found.documents.toLocaleString("en")} texts ranked by {found.model} in{" "}
            <strong>{ms(found.searchMs)} ms</strong>
          </span>
          <span>encoded in {ms(found.encodeMs)} ms</span>
        </>
      ) : (
        <>
          <span>
            {found.collection === "index"
              ? `an index of ${found.documents.toLocaleString("en")} texts searched in `
              : `${found.documents.toLocaleString("en")} texts, ${found.documentTokens.toLocaleString("en")} tokens compared in `}
            <strong>{ms(found.searchMs)} ms</strong>
          </span>
          <span>query encoded in {ms(found.encodeMs)} ms</span>
        </>
      )}
      <span data-testid="engine">{found.backend === "wgpu" ? "WebGPU" : "CPU"} · {now.engine.device}</span>
      {reranking.value && <span>{now.model} is reading …</span>}
    </p>
  );
}
