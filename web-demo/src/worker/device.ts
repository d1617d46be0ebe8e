/** What the device panel shows. */
import type { Engine } from "@maxsim/web";
import type { Fact, FactGroup } from "../protocol.ts";
import type { Collection } from "./collection.ts";
import { describe, requestAdapter } from "./adapter.ts";
import type { EncodedQuery } from "./encoders/encoder.ts";

const bytes = (count: number | undefined): string => {
  if (count === undefined) return "unknown";
  const unit = [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]].find(([, size]) => count >= (size as number)) as [string, number] | undefined;
  return unit ? `${(count / unit[1]).toFixed(1)} ${unit[0]}` : `${count} bytes`;
};

export async function deviceFacts(
  engine: Engine, of: Readonly<Record<"glosses" | "files", Collection>>, query: EncodedQuery,
): Promise<FactGroup[]> {
  const collections = Object.values(of).filter(({ documents }) => documents.length > 0);
  const corpus = await of.glosses.corpus(engine);
  const plan = await engine.explain({ op: "retrieve", q: query.vectors, d: corpus, topK: 10, normalize: false });
  const { backend, device, level, levels, threads, version } = engine.info;
  const held = await Promise.all(collections.map((collection) => collection.corpus(engine)));
  const estimate = await navigator.storage?.estimate?.().catch(() => undefined);
  const own = collections.reduce((sum, { tokens }) => sum + tokens.data.byteLength + tokens.scales.byteLength, 0);
  return [
    {
      title: "Engine",
      facts: facts({
        Backend: backend === "wgpu" ? "WebGPU" : "CPU (WebAssembly)",
        Device: device,
        [backend === "wgpu" ? "Tier" : "SIMD level"]: level,
        Available: levels.join(", "),
        Threads: threads > 0 ? String(threads) : "on the GPU",
        "maxsim version": version,
      }),
    },
    { title: "Kernel of a search", facts: facts({ Kernel: plan.kernel, ...plan.choices, ...(plan.notes.length > 0 ? { Notes: plan.notes.join("; ") } : {}) }) },
    {
      title: "Memory",
      facts: facts({
        "Corpora on the engine": bytes(held.reduce((sum, corpus) => sum + corpus.bytes, 0)),
        "Kept as": `${corpus.dtype}, ${corpus.dim} dimensions`,
        Tokens: collections.reduce((sum, { tokens }) => sum + tokens.scales.length, 0).toLocaleString("en"),
        "Token vectors in the page": bytes(own),
        "Storage in use": bytes(estimate?.usage),
        "Storage allowed": bytes(estimate?.quota),
      }),
    },
    { title: "WebGPU adapter", facts: await adapterFacts() },
    {
      title: "Browser",
      facts: facts({
        "Logical cores": String(navigator.hardwareConcurrency),
        "Cross-origin isolated": globalThis.crossOriginIsolated ? "yes" : "no",
        "User agent": navigator.userAgent,
      }),
    },
  ];
}

const facts = (of: Readonly<Record<string, string>>): Fact[] =>
  Object.entries(of).map(([name, value]) => ({ name, value: value || "not told" }));

async function adapterFacts(): Promise<Fact[]> {
  const adapter = await requestAdapter();
  if (!adapter) return facts({ Adapter: "none" });
  const { info, features, limits } = adapter;
  return facts({
    Name: describe(info),
    Vendor: info.vendor,
    Architecture: info.architecture,
    "In software": info.isFallbackAdapter ? "yes" : "no",
    "16-bit floats": features.has("shader-f16") ? "yes" : "no",
    Subgroups: features.has("subgroups") ? "yes" : "no",
    "Largest buffer": bytes(limits.maxBufferSize),
    "Largest binding": bytes(limits.maxStorageBufferBindingSize),
    "Workgroup memory": bytes(limits.maxComputeWorkgroupStorageSize),
    "Invocations per workgroup": String(limits.maxComputeInvocationsPerWorkgroup),
  });
}
