/** The modules of indexes: PLAID, and what its searches compute with. */
import type { Glue, PlaidModule } from "./module.js";
import { indexService } from "./index-service.js";
import { instantiate, type Load } from "./service.js";

export const load: Load = async (source) => {
  const glue: unknown = await (source.gpu ? import("#plaid-gpu") : source.scalar ? import("#plaid-scalar") : import("#plaid"));
  return indexService(await instantiate(glue as Glue<PlaidModule>, source));
};
