/** The GPU's module. */
import * as glue from "#gpu";
import type { EngineModule, Glue } from "./module.js";
import { engineService, failure, instantiate, type Load } from "./service.js";
import { webgpu } from "./webgpu.js";

export const load: Load = async (source) => {
  // Before anything is downloaded.
  if (!(await webgpu()?.requestAdapter())) {
    const [what, hint] = ["backend wgpu", "this browser offers no WebGPU adapter here"];
    throw failure("ERR_UNSUPPORTED", `${what} is not supported: ${hint}`, { what, hint });
  }
  return engineService(await instantiate(glue as unknown as Glue<EngineModule>, source));
};
