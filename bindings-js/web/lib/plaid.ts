/** The module of indexes: scoring on the CPU, and PLAID. */
import * as glue from "#plaid";
import type { Glue, PlaidModule } from "./module.js";
import { indexService } from "./index-service.js";
import { instantiate, type Load } from "./service.js";

export const load: Load = async (source) => indexService(await instantiate(glue as unknown as Glue<PlaidModule>, source));
