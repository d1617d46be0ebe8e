import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { FactGroup } from "../protocol.ts";
import { library, notify, state } from "../store.ts";

/** What this page runs on. */
export default function DevicePage(): JSX.Element {
  const [groups, setGroups] = useState<readonly FactGroup[]>();
  const now = state.value;
  useEffect(() => {
    if (now) library.device().then(setGroups, (error: Error) => notify("problem", error.message));
  }, [now]);
  return (
    <section aria-labelledby="device-title">
      <div class="intro">
        <h1 id="device-title">Device</h1>
        <p>{now?.noWebgpu ? `WebGPU is not used: ${now.noWebgpu}.` : "What searches run on, and what they take."}</p>
      </div>
      <div class="groups">
        {(groups ?? []).map(({ title, facts }) => (
          <section key={title} class="card" aria-label={title}>
            <h2>{title}</h2>
            <dl>
              {facts.map(({ name, value }) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}
            </dl>
          </section>
        ))}
      </div>
    </section>
  );
}
