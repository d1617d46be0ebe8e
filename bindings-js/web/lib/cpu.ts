/** The CPU's module. */
import * as glue from "#cpu";
import type { CpuModule, Glue } from "./module.js";
import { engineService, instantiate, type Load } from "./service.js";

export const load: Load = async (source) => engineService(await instantiate(glue as unknown as Glue<CpuModule>, source));
