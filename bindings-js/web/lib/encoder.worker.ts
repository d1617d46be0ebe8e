/** A worker that encodes. */
import { load } from "./encoder.js";
import { serve } from "./serve.js";

serve(load);
