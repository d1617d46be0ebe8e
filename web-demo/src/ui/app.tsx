import licence from "../../../crates/encode/assets/WORDNET-LICENSE?raw";
import type { JSX } from "preact";
import { lazy, Suspense } from "preact/compat";
import { useEffect, useState } from "preact/hooks";
import { addFiles, cancel, cancellable, dismiss, failure, notices, page, progress, type Page } from "../store.ts";
import { BackendSwitch } from "./backend-switch.tsx";
import { SearchPage } from "./search-page.tsx";

const BenchmarkPage = lazy(() => import("./benchmark-page.tsx"));
const DevicePage = lazy(() => import("./device-page.tsx"));

const TITLES: Readonly<Record<Page, string>> = { search: "Search", benchmark: "Benchmark", device: "Device" };

export function App(): JSX.Element {
  return (
    <>
      <a class="skip" href="#main">Skip to content</a>
      <header class="top">
        <a class="brand" href="#search">
          <img src="./icon.svg" alt="" width="28" height="28" />
          <span>maxsim</span>
        </a>
        <nav aria-label="Pages">
          {(Object.keys(TITLES) as Page[]).map((name) => (
            <a key={name} href={`#${name}`} aria-current={page.value === name ? "page" : undefined}>{TITLES[name]}</a>
          ))}
        </nav>
        <BackendSwitch />
      </header>
      <ProgressBar />
      <main id="main" tabIndex={-1}>
        {failure.value !== undefined && <p class="failure" role="alert">This page cannot work here: {failure.value}</p>}
        <div hidden={page.value !== "search"}><SearchPage /></div>
        <Suspense fallback={null}>
          {page.value === "benchmark" && <BenchmarkPage />}
          {page.value === "device" && <DevicePage />}
        </Suspense>
      </main>
      <footer>
        <p>Nothing you type or drop leaves this page. It works without a connection after the first visit.</p>
        <p>
          Word meanings: WordNet 3.0, © 2006 Princeton University. Encoder table derived from all-MiniLM-L6-v2 (Apache-2.0). maxsim is MIT
          or Apache-2.0.
        </p>
        <details>
          <summary>Licence of WordNet</summary>
          <pre>{licence}</pre>
        </details>
      </footer>
      <Notices />
      <DropTarget />
    </>
  );
}

function ProgressBar(): JSX.Element {
  const now = progress.value;
  const percent = now?.fraction === undefined ? undefined : Math.round(100 * now.fraction);
  return (
    <div class="progress" data-busy={now !== undefined}>
      {now && (
        <>
          <div class="track" role="progressbar" aria-label={now.what} aria-valuemin={0} aria-valuemax={100} aria-valuenow={percent}>
            <div class={percent === undefined ? "fill unknown" : "fill"} style={{ width: `${percent ?? 100}%` }} />
          </div>
          <p>
            <span>{now.what}{percent === undefined ? " …" : ` · ${percent} %`}</span>
            {cancellable.value && <button type="button" class="plain" onClick={cancel}>Cancel</button>}
          </p>
        </>
      )}
    </div>
  );
}

function Notices(): JSX.Element {
  return (
    <div class="notices" role="log" aria-label="Messages" aria-live="polite">
      {notices.value.map(({ id, kind, text }) => (
        <div key={id} class={`notice ${kind}`}>
          <p>{text}</p>
          <button type="button" class="plain" aria-label={`Dismiss: ${text}`} onClick={() => dismiss(id)}>✕</button>
        </div>
      ))}
    </div>
  );
}

/** Files may be dropped anywhere. */
function DropTarget(): JSX.Element {
  const [over, setOver] = useState(false);
  useEffect(() => {
    let inside = 0;
    const carriesFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    const listeners: Partial<Record<string, (event: DragEvent) => void>> = {
      dragenter: (event) => carriesFiles(event) && setOver(++inside > 0),
      dragleave: (event) => carriesFiles(event) && setOver(--inside > 0),
      dragover: (event) => carriesFiles(event) && event.preventDefault(),
      drop: (event) => {
        if (!carriesFiles(event)) return;
        event.preventDefault();
        setOver((inside = 0) > 0);
        void addFiles([...event.dataTransfer!.files]);
      },
    };
    for (const [type, listener] of Object.entries(listeners)) addEventListener(type, listener as EventListener);
    return () => {
      for (const [type, listener] of Object.entries(listeners)) removeEventListener(type, listener as EventListener);
    };
  }, []);
  return <div class="drop-target" data-over={over} aria-hidden="true">Drop text files to search them</div>;
}
