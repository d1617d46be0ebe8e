/** The CPU's modules: scoring and searches, or every operator. */
import type { CpuModule, Glue } from "./module.js";
import { engineService, instantiate, type Load } from "./service.js";

export const load: Load = async (source) => {
  const glue: unknown = await (source.all ? import("#cpu-all") : import("#cpu"));
  return engineService(await instantiate(glue as Glue<CpuModule>, source));
};
