/** An ONNX model with its tokenizer. Runs in a worker: tokenizing and projecting would stop the event loop. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { MaxSimError } from "@maxsim/node";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { Layout, project, readJson, readProjection, type Projection, type Sequence } from "./colbert.js";
import type { Encoded, TextKind } from "./encoder.js";

type Runtime = typeof import("onnxruntime-node");

/** Where folders have the model, in the order of preference. */
const FILES = ["model.onnx", "onnx/model.onnx", "model_int8.onnx", "onnx/model_int8.onnx", "onnx/model_quantized.onnx"];

/** Outputs with a vector per token, in the order of preference. */
const OUTPUTS = ["token_embeddings", "last_hidden_state"];

/** Tokens that go through the model at once, padding included. */
const TOKENS_PER_RUN = 4096;

/** A model that is loaded. */
export class OnnxModel {
  readonly dim: number;
  readonly #runtime: Runtime;
  readonly #session: InferenceSession;
  readonly #layout: Layout;
  readonly #projection: Projection | undefined;
  readonly #output: string;

  private constructor(runtime: Runtime, session: InferenceSession, layout: Layout, projection: Projection | undefined, output: string, hidden: number) {
    if (projection && projection.hidden !== hidden) {
      throw new MaxSimError("ERR_FORMAT", `1_Dense takes vectors of ${projection.hidden}, the model gives ${hidden}`);
    }
    this.#runtime = runtime;
    this.#session = session;
    this.#layout = layout;
    this.#projection = projection;
    this.#output = output;
    this.dim = projection?.dim ?? hidden;
  }

  /**
   * Loads the model in `folder`: one of {@link FILES}, `tokenizer.json`, and, if there are any,
   * `config_sentence_transformers.json` and `1_Dense`. `threads` as ONNX Runtime has them; `undefined`: its choice.
   *
   * @throws {MaxSimError} `ERR_UNSUPPORTED` if a package is missing or the model is of another kind, `ERR_IO` if a file is
   * missing, `ERR_FORMAT` if one is not as expected.
   */
  static async load(folder: string, threads: number | undefined): Promise<OnnxModel> {
    const [runtime, { Tokenizer }] = await Promise.all([
      optional(() => import("onnxruntime-node"), "onnxruntime-node"),
      optional(() => import("@huggingface/tokenizers"), "@huggingface/tokenizers"),
    ]);
    const file = FILES.map((name) => join(folder, name)).find((path) => existsSync(path));
    if (!file) throw new MaxSimError("ERR_IO", `${folder}: expected one of ${FILES.join(", ")}, got none`);
    const vocabulary = readJson<object>(join(folder, "tokenizer.json"));
    if (!vocabulary) throw new MaxSimError("ERR_IO", `${folder}: expected tokenizer.json, got none`);
    const layout = new Layout(new Tokenizer(vocabulary, readJson<object>(join(folder, "tokenizer_config.json")) ?? {}), folder);
    const session = await runtime.InferenceSession.create(file, { executionProviders: ["cpu"], intraOpNumThreads: threads ?? 0 }).catch(
      (cause: Error) => {
        throw new MaxSimError("ERR_FORMAT", `${file}: ${cause.message}`, {}, { cause });
      },
    );
    const unknown = session.inputNames.find((name) => !(name in INPUTS));
    if (unknown !== undefined) {
      throw new MaxSimError("ERR_UNSUPPORTED", `${file}: expected inputs ${Object.keys(INPUTS).join(", ")}, got ${unknown}`);
    }
    // One run says what the metadata may leave open.
    const probe = await session.run(inputs(runtime, session, [layout.sequence("document", "a")], layout.padding));
    const output = [...OUTPUTS, ...session.outputNames].find((name) => probe[name]?.dims.length === 3);
    const tensor = output === undefined ? undefined : probe[output];
    if (output === undefined || tensor?.type !== "float32") {
      throw new MaxSimError("ERR_UNSUPPORTED", `${file}: expected a float32 output [texts, tokens, hidden], got ${session.outputNames.join(", ")}`);
    }
    return new OnnxModel(runtime, session, layout, readProjection(folder), output, tensor.dims[2]!);
  }

  /** Unit vectors of the tokens of `texts`. `check` is called between runs and may throw to stop. */
  async encode(kind: TextKind, texts: readonly string[], check: () => void): Promise<Encoded> {
    const sequences = texts.map((text) => this.#layout.sequence(kind, text));
    const offsets = new Uint32Array(texts.length + 1);
    sequences.forEach(({ kept }, i) => (offsets[i + 1] = offsets[i]! + kept.filter(Boolean).length));
    const vectors = new Float32Array(offsets[texts.length]! * this.dim);
    for (const batch of batches(sequences)) {
      check();
      const padded = batch.map((i) => sequences[i]!);
      const { data, dims } = (await this.#session.run(inputs(this.#runtime, this.#session, padded, this.#layout.padding)))[this.#output]!;
      const [, length, hidden] = dims as readonly [number, number, number];
      batch.forEach((text, row) => {
        let at = offsets[text]! * this.dim;
        sequences[text]!.kept.forEach((keep, t) => {
          if (!keep) return;
          const start = (row * length + t) * hidden;
          project((data as Float32Array).subarray(start, start + hidden), this.#projection, vectors.subarray(at, (at += this.dim)));
        });
      });
    }
    return { vectors, offsets };
  }
}

/** What the inputs of a model are called, and what they hold. */
const INPUTS: Readonly<Record<string, (sequence: Sequence, t: number, padding: number) => number>> = {
  input_ids: ({ ids }, t, padding) => ids[t] ?? padding,
  attention_mask: ({ attended }, t) => (attended[t] ? 1 : 0),
  token_type_ids: () => 0,
};

function inputs(runtime: Runtime, session: InferenceSession, batch: readonly Sequence[], padding: number): Record<string, Tensor> {
  const length = Math.max(...batch.map(({ ids }) => ids.length));
  const filled = (value: (sequence: Sequence, t: number, padding: number) => number): Tensor => {
    const data = new BigInt64Array(batch.length * length);
    batch.forEach((sequence, row) => {
      for (let t = 0; t < length; t++) data[row * length + t] = BigInt(value(sequence, t, padding));
    });
    return new runtime.Tensor("int64", data, [batch.length, length]);
  };
  return Object.fromEntries(session.inputNames.map((name) => [name, filled(INPUTS[name]!)]));
}

/** Positions of sequences, similar lengths together, so that little is padded. */
function* batches(sequences: readonly Sequence[]): Generator<number[]> {
  const order = sequences.map((_, i) => i).sort((a, b) => sequences[b]!.ids.length - sequences[a]!.ids.length);
  for (let start = 0; start < order.length; ) {
    const longest = Math.max(1, sequences[order[start]!]!.ids.length);
    const count = Math.max(1, Math.floor(TOKENS_PER_RUN / longest));
    yield order.slice(start, (start += count));
  }
}

async function optional<T>(load: () => Promise<T>, name: string): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    const hint = "npm install onnxruntime-node @huggingface/tokenizers";
    throw new MaxSimError("ERR_UNSUPPORTED", `ONNX models need the package ${name} (${hint}): ${(cause as Error).message}`, { hint }, { cause });
  }
}
