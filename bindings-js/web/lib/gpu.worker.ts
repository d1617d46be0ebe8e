/** A worker that computes on the GPU. */
import { load } from "./gpu.js";
import { serve } from "./serve.js";

serve(load);
