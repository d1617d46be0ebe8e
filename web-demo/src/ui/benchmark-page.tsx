import { useSignal } from "@preact/signals";
import { proxy } from "comlink";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { BenchmarkEvents, Measured, Runner } from "../protocol.ts";
import { cancel, library, notify, progress, state } from "../store.ts";

const RUNNERS: readonly Runner[] = ["WebGPU", "CPU, SIMD", "CPU, no SIMD", "Plain JavaScript"];
const QUERY = "a small animal with a hard shell that lives under water";
/** Of all glosses, the share that is searched. */
const SHARES = [1 / 16, 1 / 4, 1];

/** The same search on every backend. */
export default function BenchmarkPage(): JSX.Element {
  const measured = useSignal<readonly Measured[]>([]);
  const unavailable = useSignal<readonly string[]>([]);
  const running = useSignal<string | undefined>(undefined);
  const now = state.value;
  useEffect(() => () => void (running.value !== undefined && cancel()), []);

  const run = async (): Promise<void> => {
    [measured.value, unavailable.value, running.value] = [[], [], "Starting"];
    const sizes = SHARES.map((share) => Math.round(now!.glosses * share));
    const tell = proxy((event: BenchmarkEvents) => {
      // The last event may come after the end.
      if (event.running && running.value !== undefined) running.value = event.running;
      if (event.measured) measured.value = [...measured.value, event.measured];
      if (event.unavailable) unavailable.value = [...unavailable.value, `${event.unavailable.runner}: ${event.unavailable.why}`];
    });
    try {
      await library.benchmark(QUERY, sizes, tell);
    } catch (error) {
      if ((error as Error).name !== "AbortError") notify("problem", (error as Error).message);
    } finally {
      running.value = undefined;
    }
  };

  return (
    <section aria-labelledby="benchmark-title">
      <div class="intro">
        <h1 id="benchmark-title">Benchmark</h1>
        <p>The same search over the word meanings on every backend this browser has. Query: “{QUERY}”.</p>
      </div>
      <div class="toolbar">
        {running.value === undefined
          ? <button type="button" class="primary" disabled={!now || progress.value !== undefined} onClick={() => void run()}>Run</button>
          : <button type="button" onClick={cancel}>Stop</button>}
        <p class="running" role="status">{running.value ?? (measured.value.length > 0 ? "Done" : "Takes half a minute or less on most machines.")}</p>
      </div>
      {unavailable.value.map((text) => <p key={text} class="remark">{text}</p>)}
      <Plot measured={measured.value} />
      {measured.value.length > 0 && <Table measured={measured.value} />}
    </section>
  );
}

function Table({ measured }: { measured: readonly Measured[] }): JSX.Element {
  return (
    <div class="card scroll" role="region" aria-label="Measurements" tabIndex={0}>
      <table class="figures">
        <caption class="hidden">Median time of a search</caption>
        <thead>
          <tr><th scope="col">Backend</th><th scope="col">Texts</th><th scope="col">Median</th><th scope="col">Runs</th><th scope="col">GFLOP/s</th></tr>
        </thead>
        <tbody>
          {measured.map(({ runner, documents, ms, runs, gflops }) => (
            <tr key={`${runner} ${documents}`}>
              <th scope="row">{runner}</th>
              <td>{documents.toLocaleString("en")}</td>
              <td>{ms.toFixed(ms < 10 ? 2 : 1)} ms</td>
              <td>{runs}</td>
              <td>{gflops.toFixed(gflops < 10 ? 2 : 1)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Time over number of texts, both logarithmic. The table has the same figures. */
function Plot({ measured }: { measured: readonly Measured[] }): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = place.current!;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    let plot: uPlot | undefined;
    const draw = (): void => {
      plot?.destroy();
      plot = measured.length > 0 ? chart(element, measured) : undefined;
    };
    const resize = new ResizeObserver(() => plot?.setSize({ width: element.clientWidth, height: HEIGHT }));
    resize.observe(element);
    dark.addEventListener("change", draw);
    draw();
    return () => {
      resize.disconnect();
      dark.removeEventListener("change", draw);
      plot?.destroy();
    };
  }, [measured]);
  return <div class="card plot" ref={place} aria-hidden="true">{measured.length === 0 && <p>The plot appears here.</p>}</div>;
}

const HEIGHT = 320;

/** Lines at 1, 10, 100, … only. */
const decades = (_: uPlot, at: number[]): (number | null)[] => at.map((value) => (Number.isInteger(Math.log10(value)) ? value : null));

function chart(element: HTMLElement, measured: readonly Measured[]): uPlot {
  const sizes = [...new Set(measured.map(({ documents }) => documents))].sort((a, b) => a - b);
  const of = (runner: Runner): (number | null)[] =>
    sizes.map((size) => measured.find((one) => one.runner === runner && one.documents === size)?.ms ?? null);
  const shown = RUNNERS.filter((runner) => measured.some((one) => one.runner === runner));
  const style = getComputedStyle(document.documentElement);
  const color = (name: string): string => style.getPropertyValue(name).trim();
  const [smallest, largest] = [sizes[0]!, sizes.at(-1)!];
  const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
  return new uPlot(
    {
      width: element.clientWidth,
      height: HEIGHT,
      scales: { x: { time: false, distr: 3, range: () => [smallest / 1.3, largest * 1.3] }, y: { distr: 3 } },
      axes: [
        { ...axis, label: "texts", splits: () => sizes, filter: (_, at) => at, values: (_, at) => at.map((value) => value?.toLocaleString("en") ?? "") },
        { ...axis, grid: { ...axis.grid, filter: decades }, ticks: { ...axis.ticks, filter: decades }, label: "ms per search", size: 64, filter: decades, values: (_, at) => at.map((value) => (value?.toString() ?? "")) },
      ],
      legend: { live: false },
      series: [
        {},
        ...shown.map((runner) => ({
          label: runner, stroke: color(`--series-${RUNNERS.indexOf(runner)}`), width: 2, points: { show: true, size: 8 },
        })),
      ],
    },
    [sizes, ...shown.map(of)],
    element,
  );
}
