/** The modules of indexes: PLAID, and what its searches compute with. */
import type { Glue, PlaidModule } from "./module.js";
import { indexService } from "./index-service.js";
import { instantiate, type Load, type Source } from "./service.js";

/** A module's JavaScript. */
function script({ scalar, gpu, all }: Source): Promise<unknown> {
  if (scalar) return import("#plaid-scalar");
  if (gpu) return all ? import("#plaid-gpu-all") : import("#plaid-gpu");
  return all ? import("#plaid-all") : import("#plaid");
}

export const load: Load = async (source) => indexService(await instantiate((await script(source)) as Glue<PlaidModule>, source));
