/**
 * An ONNX model with its tokenizer. Like `colbert.ts`, it does not know where it runs: the runtime and the files are given to it.
 * Run it on a worker: tokenizing and projecting would stop the event loop.
 */
import { MaxSimError } from "@maxsim/api";
import type { Tokenizer } from "@huggingface/tokenizers";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { Layout, parseProjection, project, type Projection, type PyLateConfig, type Sequence } from "./colbert.js";
import type { Encoded, TextKind } from "./encoder.js";

/** What is used of ONNX Runtime, which is one thing in Node and another in browsers. */
export interface Runtime {
  readonly Tensor: new (type: "int64", data: BigInt64Array, dims: readonly number[]) => Tensor;
  /** Makes a session of a file that {@link ModelFiles} has. */
  session(file: string): Promise<Pick<InferenceSession, "inputNames" | "outputNames" | "run">>;
  readonly Tokenizer: typeof Tokenizer;
}

/** The folder of a model. */
export interface ModelFiles {
  /** What messages call it. */
  readonly name: string;
  has(file: string): Promise<boolean>;
  /** Undefined if there is none. */
  read(file: string): Promise<Uint8Array | undefined>;
}

/** Where folders have the model, the most exact ones first. */
export const FILES: readonly string[] = ["model.onnx", "onnx/model.onnx", "model_int8.onnx", "onnx/model_int8.onnx", "onnx/model_quantized.onnx"];

/** Outputs with a vector per token, in the order of preference. */
const OUTPUTS = ["token_embeddings", "last_hidden_state"];

/** Tokens that go through the model at once, padding included. */
const TOKENS_PER_RUN = 4096;

/** Texts as tokens, with their ids. */
export interface EncodedIds extends Encoded {
  /** `[T]` */
  readonly ids: Uint32Array;
}

/** A model that is loaded. */
export class OnnxModel {
  readonly dim: number;
  readonly layout: Layout;
  readonly #runtime: Runtime;
  readonly #session: Pick<InferenceSession, "inputNames" | "run">;
  readonly #projection: Projection | undefined;
  readonly #output: string;

  private constructor(
    runtime: Runtime, session: Pick<InferenceSession, "inputNames" | "run">, layout: Layout, projection: Projection | undefined,
    output: string, hidden: number,
  ) {
    if (projection && projection.hidden !== hidden) {
      throw new MaxSimError("ERR_FORMAT", `1_Dense takes vectors of ${projection.hidden}, the model gives ${hidden}`);
    }
    this.#runtime = runtime;
    this.#session = session;
    this.layout = layout;
    this.#projection = projection;
    this.#output = output;
    this.dim = projection?.dim ?? hidden;
  }

  /**
   * Loads the model: the first of `names` that there is, `tokenizer.json`, and, if there are any, `config_sentence_transformers.json` and
   * `1_Dense`.
   *
   * @throws {MaxSimError} `ERR_UNSUPPORTED` if the model is of another kind, `ERR_IO` if a file is missing, `ERR_FORMAT` if one
   * is not as expected.
   */
  static async load(runtime: Runtime, files: ModelFiles, names = FILES): Promise<OnnxModel> {
    let file: string | undefined;
    for (const name of names) if (file === undefined && (await files.has(name))) file = name;
    if (file === undefined) throw new MaxSimError("ERR_IO", `${files.name}: expected one of ${names.join(", ")}, got none`);
    const vocabulary = await readJson<object>(files, "tokenizer.json");
    if (!vocabulary) throw new MaxSimError("ERR_IO", `${files.name}: expected tokenizer.json, got none`);
    const tokenizer = new runtime.Tokenizer(vocabulary, (await readJson<object>(files, "tokenizer_config.json")) ?? {});
    const layout = new Layout(tokenizer, await readJson<PyLateConfig>(files, "config_sentence_transformers.json"));
    const session = await runtime.session(file).catch((cause: Error) => {
      throw new MaxSimError("ERR_FORMAT", `${files.name}/${file}: ${cause.message}`, {}, { cause });
    });
    const unknown = session.inputNames.find((name) => !(name in INPUTS));
    if (unknown !== undefined) {
      throw new MaxSimError("ERR_UNSUPPORTED", `${files.name}/${file}: expected inputs ${Object.keys(INPUTS).join(", ")}, got ${unknown}`);
    }
    // One run says what the metadata may leave open.
    const probe = await session.run(inputs(runtime, session, [layout.sequence("document", "a")], layout.padding));
    const output = [...OUTPUTS, ...session.outputNames].find((name) => probe[name]?.dims.length === 3);
    const tensor = output === undefined ? undefined : probe[output];
    if (output === undefined || tensor?.type !== "float32") {
      const got = session.outputNames.join(", ");
      throw new MaxSimError("ERR_UNSUPPORTED", `${files.name}/${file}: expected a float32 output [texts, tokens, hidden], got ${got}`);
    }
    return new OnnxModel(runtime, session, layout, await readProjection(files), output, tensor.dims[2]!);
  }

  /** Unit vectors of the tokens of `texts`. `check` is called between runs and may throw to stop. */
  async encode(kind: TextKind, texts: readonly string[], check: () => void): Promise<EncodedIds> {
    const sequences = texts.map((text) => this.layout.sequence(kind, text));
    const offsets = new Uint32Array(texts.length + 1);
    sequences.forEach(({ kept }, i) => (offsets[i + 1] = offsets[i]! + kept.filter(Boolean).length));
    const ids = Uint32Array.from(sequences.flatMap((sequence) => sequence.ids.filter((_, t) => sequence.kept[t])));
    const vectors = new Float32Array(offsets[texts.length]! * this.dim);
    for (const batch of batches(sequences)) {
      check();
      const padded = batch.map((i) => sequences[i]!);
      const { data, dims } = (await this.#session.run(inputs(this.#runtime, this.#session, padded, this.layout.padding)))[this.#output]!;
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
    return { vectors, offsets, ids };
  }
}

/** What the inputs of a model are called, and what they hold. */
const INPUTS: Readonly<Record<string, (sequence: Sequence, t: number, padding: number) => number>> = {
  input_ids: ({ ids }, t, padding) => ids[t] ?? padding,
  attention_mask: ({ attended }, t) => (attended[t] ? 1 : 0),
  token_type_ids: () => 0,
};

function inputs(runtime: Runtime, session: Pick<InferenceSession, "inputNames">, batch: readonly Sequence[], padding: number): Record<string, Tensor> {
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

/** The projection in `1_Dense`; undefined if the model has none. */
async function readProjection(files: ModelFiles): Promise<Projection | undefined> {
  const [config, weights] = [await readJson<{ activation_function?: string }>(files, "1_Dense/config.json"), await files.read("1_Dense/model.safetensors")];
  const file = `${files.name}/1_Dense/model.safetensors`;
  if (weights) return parseProjection(file, weights, config);
  if (config) throw new MaxSimError("ERR_IO", `${file}: expected the weights of the projection, got none`);
  return undefined;
}

/** The JSON file, or `undefined` if there is none. */
async function readJson<T>(files: ModelFiles, file: string): Promise<T | undefined> {
  const bytes = await files.read(file);
  if (!bytes) return undefined;
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) as T;
  } catch (cause) {
    throw new MaxSimError("ERR_FORMAT", `${files.name}/${file}: ${(cause as Error).message}`, {}, { cause });
  }
}
