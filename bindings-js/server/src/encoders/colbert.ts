/**
 * How ColBERT models want their texts laid out, and how their folders say so, in the format of PyLate
 * (https://lightonai.github.io/pylate): prefixes behind the first special token, queries filled up with mask tokens,
 * punctuation of documents left out after encoding, a projection in `1_Dense`.
 *
 * Nothing here knows where it runs: the demo site uses it in browsers.
 */
import { MaxSimError } from "@maxsim/api";
import type { Tokenizer } from "@huggingface/tokenizers";
import { elements, parseSafetensors, type TensorView } from "../vectors/safetensors.js";
import type { TextKind } from "./encoder.js";

/** One text as a model takes it. */
export interface Sequence {
  readonly ids: readonly number[];
  /** Whether the model attends to the token. */
  readonly attended: readonly boolean[];
  /** Whether its vector is part of the result. */
  readonly kept: readonly boolean[];
}

/** `vector · weightᵀ + bias`. */
export interface Projection {
  /** `[dim, hidden]` */
  readonly weight: Float32Array;
  readonly bias: Float32Array | undefined;
  readonly dim: number;
  readonly hidden: number;
}

/** `config_sentence_transformers.json`, as far as it matters here. */
export interface PyLateConfig {
  query_prefix?: string;
  document_prefix?: string;
  query_length?: number;
  document_length?: number;
  do_query_expansion?: boolean;
  attend_to_expansion_tokens?: boolean;
  skiplist_words?: string[];
}

/** Longer texts than this per token that a model takes are cut before they are tokenized. */
const CHARACTERS_PER_TOKEN = 64;

/** Lays texts out for one model. */
export class Layout {
  readonly padding: number;
  readonly #unknown: number;
  readonly #tokenizer: Tokenizer;
  readonly #config: PyLateConfig;
  readonly #prefixes: Readonly<Record<TextKind, readonly number[]>>;
  /** What queries are filled up with, if they are. */
  readonly #expansion: number | undefined;
  readonly #skip: ReadonlySet<number>;
  /** Special tokens that the tokenizer puts before and behind every text. */
  readonly #head: readonly number[];
  readonly #tail: readonly number[];

  /** @throws {MaxSimError} `ERR_FORMAT` for a configuration that does not fit the vocabulary. */
  constructor(tokenizer: Tokenizer, config: PyLateConfig | undefined) {
    this.#tokenizer = tokenizer;
    this.#config = config ?? {};
    const token = (...spellings: string[]): number => {
      const id = spellings.map((spelling) => tokenizer.token_to_id(spelling)).find((found) => found !== undefined);
      if (id === undefined) throw new MaxSimError("ERR_FORMAT", `the vocabulary of the model has no token ${JSON.stringify(spellings[0])}`);
      return id;
    };
    const prefix = (text: string | undefined): number[] => (text ? [token(text, text.trim())] : []);
    this.#prefixes = { query: prefix(config?.query_prefix), document: prefix(config?.document_prefix) };
    // Without that file it is a bare encoder, which was not trained on expanded queries.
    const expands = config !== undefined && config.do_query_expansion !== false;
    this.#expansion = expands ? token("[MASK]", "<mask>") : undefined;
    this.#skip = new Set((config?.skiplist_words ?? []).flatMap((word) => tokenizer.token_to_id(word) ?? []));
    this.padding = tokenizer.token_to_id("[PAD]") ?? tokenizer.token_to_id("<pad>") ?? 0;
    this.#unknown = tokenizer.token_to_id("[UNK]") ?? tokenizer.token_to_id("<unk>") ?? this.padding;
    const empty: number[] = tokenizer.encode("").ids;
    const some: number[] = tokenizer.encode("a").ids;
    const differs = empty.findIndex((id, i) => id !== some[i]);
    this.#head = empty.slice(0, differs < 0 ? empty.length : differs);
    this.#tail = empty.slice(this.#head.length);
  }

  /** The vocabulary's spelling of a token. */
  token(id: number): string {
    return this.#tokenizer.id_to_token(id) ?? "";
  }

  /** `text` as the model takes it. */
  sequence(kind: TextKind, text: string): Sequence {
    const { query_length = 32, document_length = 300 } = this.#config;
    const length = kind === "query" ? query_length : document_length;
    const prefix = this.#prefixes[kind];
    const room = Math.max(0, length - this.#head.length - this.#tail.length - prefix.length);
    const cut = text.slice(0, length * CHARACTERS_PER_TOKEN);
    // The tokenizer has no id for words that a vocabulary of whole words lacks.
    const words: (number | undefined)[] = this.#tokenizer.encode(cut, { add_special_tokens: false }).ids;
    const ids = [...this.#head, ...prefix, ...words.slice(0, room).map((id) => id ?? this.#unknown), ...this.#tail];
    const attended = ids.map(() => true);
    const kept = ids.map((id) => kind === "query" || !this.#skip.has(id));
    if (kind === "query" && this.#expansion !== undefined) {
      for (; ids.length < length; ids.push(this.#expansion)) {
        attended.push(this.#config.attend_to_expansion_tokens === true);
        kept.push(true);
      }
    }
    return { ids, attended, kept };
  }
}

/**
 * The projection in `weights`, the bytes of `file`; `config` is that of `1_Dense`.
 *
 * @throws {MaxSimError} `ERR_UNSUPPORTED` for an activation, `ERR_FORMAT` for arrays that are not as expected.
 */
export function parseProjection(file: string, weights: Uint8Array, config: { activation_function?: string } | undefined): Projection {
  const activation = config?.activation_function;
  if (activation !== undefined && !activation.endsWith("Identity")) {
    throw new MaxSimError("ERR_UNSUPPORTED", `1_Dense/config.json: expected no activation, got ${activation}`);
  }
  const tensors = readTensors(file, weights);
  const read = (name: string, rank: number): { data: Float32Array; shape: readonly number[] } | undefined => {
    const tensor = tensors.get(name);
    if (tensor && (tensor.dtype !== "F32" || tensor.shape.length !== rank)) {
      throw new MaxSimError("ERR_FORMAT", `${file}: expected ${name} to be F32 of rank ${rank}, got ${tensor.dtype} [${tensor.shape.join(", ")}]`);
    }
    return tensor && { data: elements(tensor.bytes, Float32Array), shape: tensor.shape };
  };
  const weight = read("linear.weight", 2);
  if (!weight) throw new MaxSimError("ERR_FORMAT", `${file}: expected linear.weight, got ${[...tensors.keys()].join(", ")}`);
  const bias = read("linear.bias", 1)?.data;
  const [dim, hidden] = weight.shape as [number, number];
  if (bias && bias.length !== dim) throw new MaxSimError("ERR_FORMAT", `${file}: expected linear.bias of ${dim}, got ${bias.length}`);
  return { weight: weight.data, bias, dim, hidden };
}

function readTensors(file: string, bytes: Uint8Array): Map<string, TensorView> {
  try {
    return parseSafetensors(bytes);
  } catch (cause) {
    throw new MaxSimError("ERR_FORMAT", `${file}: ${(cause as Error).message}`, {}, { cause });
  }
}

/** Writes `hidden` projected, of unit length, to `out`. */
export function project(hidden: Float32Array, projection: Projection | undefined, out: Float32Array): void {
  if (projection) {
    const { weight, bias, dim } = projection;
    for (let i = 0; i < dim; i++) {
      let sum = bias?.[i] ?? 0;
      for (let k = 0, at = i * hidden.length; k < hidden.length; k++) sum += hidden[k]! * weight[at + k]!;
      out[i] = sum;
    }
  } else {
    out.set(hidden);
  }
  let square = 0;
  for (const x of out) square += x * x;
  const scale = 1 / Math.max(Math.sqrt(square), 1e-6);
  for (let i = 0; i < out.length; i++) out[i]! *= scale;
}
