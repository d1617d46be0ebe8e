/** A worker that has an index. */
import { load } from "./plaid.js";
import { serve } from "./serve.js";

serve(load);
