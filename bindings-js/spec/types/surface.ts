// Compiles, and that is the test: every package is an `Api`, and code as users write it type-checks.
import type { Api, Corpus, Engine, ResidualCodec, ResidualInput, Scorer, TokensInput, TopK } from "@maxsim/api";
import * as node from "@maxsim/node";
import * as web from "@maxsim/web";
import * as umbrella from "maxsim";
import { createEngine, type DType, type EngineInfo, MaxSimError } from "@maxsim/node";

node satisfies Api;
web satisfies Api;
umbrella satisfies Api;
const api: Api = node;

export async function corpus(data: Uint16Array, offsets: Uint32Array, query: Float32Array): Promise<TopK> {
  const engine = await createEngine();
  const docs = await engine.corpus({ data, offsets, dim: 128, dtype: "f16" });
  const { scores, indices, argmax } = await docs.search(query, { topK: 10, explain: true });
  return { scores, indices, shape: [scores.length], argmax };
}

export async function disposal(): Promise<void> {
  await using engine = await api.createEngine({ backend: "cpu", cpuLevel: "avx2", threads: 2 });
  await using docs = await engine.corpus({ data: new Float32Array(8), shape: [1, 2, 4], storage: "bf16" });
  await docs.score({ data: new Int8Array(8), dim: 4, scales: 0.1 }, { signal: AbortSignal.timeout(100) });
}

export async function training(engine: Engine, q: TokensInput, d: TokensInput): Promise<Float32Array | Uint16Array> {
  const operation = { op: "maxsim", q, d, normalize: true } as const;
  const { scores, argmax } = await engine.maxsim(q, d, { normalize: true, argmax: true });
  const gradients = await engine.backward(operation, scores, { argmax, method: "lowmem", wants: ["q"] });
  await engine.explain({ op: "backward", of: operation, gradScores: scores });
  // Gradients are operands.
  if (gradients.q !== undefined) await engine.maxsim(gradients.q, d);
  const head = { q, h: d, w: { data: new Float32Array(8), shape: [2, 4] }, b: new Float32Array(2) };
  const { w } = await engine.maxsimFromHiddenBackward(head, scores, { wants: ["w"] });
  return w?.data ?? scores;
}

export async function residuals(engine: Engine, x: Float32Array, codec: ResidualCodec): Promise<Corpus> {
  const docs: ResidualInput = { ...codec, ...(await engine.quantizeResidual({ data: x, dim: 8 }, codec, [0])), offsets: [0, 3] };
  await engine.maxsim(await node.quantizeInt8({ data: x, dim: 8 }), docs, { normalize: true });
  await engine.plaidApproxScore({ data: x, dim: 8 }, { codes: docs.codes, offsets: docs.offsets });
  return engine.corpus(docs);
}

export function failures(error: unknown): string {
  if (!(error instanceof MaxSimError)) throw error;
  switch (error.code) {
    case "ERR_SHAPE":
      return error.details.argument ?? "";
    default:
      return error.message;
  }
}

export async function mistakes(engine: Engine, docs: Corpus, scorer: Scorer, info: EngineInfo): Promise<void> {
  const q = { data: new Float32Array(4), dim: 4 };
  // @ts-expect-error topK is required
  await docs.search(q, {});
  // @ts-expect-error an option that does not exist
  await engine.maxsim(q, docs, { normalise: true });
  // @ts-expect-error a type that does not exist
  const dtype: DType = "f64";
  // @ts-expect-error fixed by the scorer
  await scorer.forward(q, docs, { normalize: dtype });
  // @ts-expect-error the bit order has no default
  const codec: ResidualCodec = { centroids: q, bucketWeights: [0, 1], nbits: 1 };
  // @ts-expect-error a corpus has no gradient
  await engine.backward({ op: "maxsim", q, d: docs }, [1], {});
  // @ts-expect-error only the fused head has a projection
  await engine.backward({ op: "maxsim", q, d: codec }, [1], { wants: ["w"] });
  // @ts-expect-error read-only
  info.threads = 3;
}

export async function indexes(engine: Engine, q: Float32Array, batch: TokensInput): Promise<bigint | string | undefined> {
  await using index = await engine.buildIndex({
    path: "wiki.index",
    documents: async function* () {
      yield { documents: batch, ids: [1, 2n], metadata: [{ year: 2020, lang: "en" }, { year: null }] };
    },
    onProgress: ({ phase, documents, total }) => void [phase, documents, total],
  });
  await index.add({ documents: batch, ids: new BigUint64Array([3n, 4n]) }, { replace: true });
  await index.delete({ filter: "year < ?", parameters: [1990] });
  const [hits] = await index.search(q, { topK: 10, filter: "lang IN ('de', 'en')" });
  const file: Uint8Array = await index.pack();
  for (const source of ["wiki.index", file, new ArrayBuffer(8), { href: "file:///wiki.mxi" }]) {
    await (await engine.openIndex(source, { lazy: true, onProgress: (loaded, total) => void (loaded / total) })).dispose();
  }
  // @ts-expect-error no place at all
  await engine.openIndex(7);
  return hits?.[0]?.id;
}
