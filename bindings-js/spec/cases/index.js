// Cases that every implementation of the surface passes. A case is `{ name, run(context) }`; `context` has
// `api` (the package), `engine` (silent, shared), `create(options)` (another engine like it), `now()` in ms, `sleep(ms)` and
// `files` (cases/indexes.js).
// Nothing here may import from Node.
import { calls } from "./calls.js";
import { corpora } from "./corpora.js";
import { encoder } from "./encoder.js";
import { errors } from "./errors.js";
import { gradients } from "./gradients.js";
import { indexes } from "./indexes.js";
import { inputs } from "./inputs.js";
import { operators } from "./operators.js";
import { plaid, quantizers } from "./quantized.js";

export const suites = { operators, inputs, corpora, gradients, quantizers, plaid, indexes, errors, calls, encoder };
