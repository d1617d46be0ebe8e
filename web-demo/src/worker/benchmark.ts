/** Times the same search on every backend there is. */
import { createEngine, type EngineOptions } from "@maxsim/web";
import type { BenchmarkEvents, Runner } from "../protocol.ts";
import { head, similarity, type TokenTable } from "./tokens.ts";

const ENGINES: readonly { readonly runner: Runner; readonly options: EngineOptions }[] = [
  { runner: "WebGPU", options: { backend: "wgpu" } },
  { runner: "CPU, SIMD", options: { backend: "cpu", cpuLevel: "simd128" } },
  { runner: "CPU, no SIMD", options: { backend: "cpu", cpuLevel: "generic" } },
];

const TOP_K = 10;
/** Runs per measurement at most, and milliseconds after which no further one is begun. */
const RUNS = 15;
const PATIENCE = 1500;
/** Milliseconds that a search may be expected to take; larger sizes are left out. */
const TOO_SLOW = 4000;

export async function benchmark(
  tokens: TokenTable, query: Float32Array, sizes: readonly number[], tell: (event: BenchmarkEvents) => void, signal: AbortSignal,
): Promise<void> {
  /** Gives the median in milliseconds. */
  const measure = async (runner: Runner, documents: number, run: () => unknown): Promise<number> => {
    signal.throwIfAborted();
    tell({ running: `${runner}, ${documents.toLocaleString("en")} documents` });
    await run(); // Pipelines and buffers are made by the first one.
    const times: number[] = [];
    for (const begun = performance.now(); times.length < RUNS && (times.length < 3 || performance.now() - begun < PATIENCE); ) {
      signal.throwIfAborted();
      const started = performance.now();
      await run();
      times.push(performance.now() - started);
    }
    const ms = times.sort((a, b) => a - b)[times.length >> 1]!;
    const flops = 2 * query.length * tokens.offsets[documents]!;
    tell({ measured: { runner, documents, ms, runs: times.length, gflops: flops / ms / 1e6 } });
    return ms;
  };

  for (const { runner, options } of ENGINES) {
    signal.throwIfAborted();
    let engine;
    try {
      engine = await createEngine(options);
    } catch (error) {
      tell({ unavailable: { runner, why: (error as Error).message } });
      continue;
    }
    try {
      let perDocument = 0;
      for (const size of sizes) {
        if (perDocument * size > TOO_SLOW) {
          tell({ unavailable: { runner, why: `too slow here for ${size.toLocaleString("en")} texts` } });
          break;
        }
        const { data, scales, offsets, dim } = head(tokens, size);
        const corpus = await engine.corpus({ data, scales, offsets, dim, normalize: false });
        perDocument = (await measure(runner, size, () => corpus.search(query, { topK: TOP_K }))) / size;
        await corpus.dispose();
      }
    } finally {
      await engine.dispose();
    }
  }
  // What one would write without a library, for comparison.
  for (const size of sizes) await measure("Plain JavaScript", size, () => plain(head(tokens, size), query));
}

function plain(tokens: TokenTable, query: Float32Array): number[] {
  const { offsets, dim } = tokens;
  const scores = Array.from({ length: offsets.length - 1 }, (_, document) => {
    let score = 0;
    for (let s = 0; s < query.length / dim; s++) {
      let best = -Infinity;
      for (let row = offsets[document]!; row < offsets[document + 1]!; row++) best = Math.max(best, similarity(tokens, row, query, s));
      if (best > -Infinity) score += best;
    }
    return score;
  });
  return scores.map((_, i) => i).sort((a, b) => scores[b]! - scores[a]!).slice(0, TOP_K);
}
