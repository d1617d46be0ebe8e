/** The modules of indexes: scoring on the CPU, and PLAID. */
import type { Glue, PlaidModule } from "./module.js";
import { indexService } from "./index-service.js";
import { instantiate, type Load } from "./service.js";

export const load: Load = async (source) => {
  const glue: unknown = await (source.scalar ? import("#plaid-scalar") : import("#plaid"));
  return indexService(await instantiate(glue as Glue<PlaidModule>, source));
};
