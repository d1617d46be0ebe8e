/** The GPU's modules: scoring and searches, or every operator. */
import type { EngineModule, Glue } from "./module.js";
import { engineService, instantiate, type Load, unsupported } from "./service.js";
import { isSoftware, webgpu } from "./webgpu.js";

export const load: Load = async (source) => {
  // Before anything is downloaded.
  const adapter = await webgpu()?.requestAdapter({ powerPreference: "high-performance" });
  const hint = !adapter
    ? "this browser offers no WebGPU adapter here"
    : source.hardware && isSoftware(adapter)
      ? 'the adapter is software, slower than this package on the CPU; backend: "wgpu" takes it all the same'
      : undefined;
  if (hint !== undefined) throw unsupported("backend wgpu", hint);
  const glue: unknown = await (source.all ? import("#gpu-all") : import("#gpu"));
  return engineService(await instantiate(glue as Glue<EngineModule>, source));
};
