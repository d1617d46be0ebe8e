/** A worker that computes on the CPU. */
import { load } from "./cpu.js";
import { serve } from "./serve.js";

serve(load);
