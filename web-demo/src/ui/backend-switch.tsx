import type { JSX } from "preact";
import type { Backend } from "../protocol.ts";
import { progress, setBackend, state, switching } from "../store.ts";

const NAMES: Readonly<Record<Backend, string>> = { wgpu: "WebGPU", cpu: "CPU" };

/** Where searches are computed. */
export function BackendSwitch(): JSX.Element {
  const now = state.value;
  const unavailable = now?.noWebgpu;
  return (
    <fieldset class="segmented" disabled={now === undefined || progress.value !== undefined}>
      <legend class="hidden">Compute on</legend>
      {(Object.keys(NAMES) as Backend[]).map((backend) => (
        <label key={backend} title={backend === "wgpu" && unavailable ? `Not available: ${unavailable}` : undefined}>
          <input
            type="radio" name="backend" value={backend} checked={(switching.value ?? now?.engine.backend) === backend}
            disabled={backend === "wgpu" && unavailable !== undefined} onChange={() => void setBackend(backend)}
          />
          <span>{NAMES[backend]}</span>
        </label>
      ))}
    </fieldset>
  );
}
