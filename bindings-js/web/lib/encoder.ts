/** The encoder's module. */
import * as glue from "#encoder";
import type { EncoderModule, Glue } from "./module.js";
import { encoderService, instantiate, type Load } from "./service.js";

export const load: Load = async (source) =>
  encoderService(await instantiate(glue as unknown as Glue<EncoderModule>, source), source);
