// A ColBERT model small enough to check by hand, as PyLate saves them: a table of vectors in ONNX, a vocabulary of words, a
// projection. Nothing but this file is needed to make one.
import { mkdirSync, writeFileSync } from "node:fs";
import { safetensors } from "./client.mjs";

/** The vocabulary; a token's id is its position. */
export const VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[Q] ", "[D] ", ".", "ship", "sea", "ice", "tax", "under", "the"];
export const HIDDEN = 6;
export const DIM = 4;

const sine = (count, seed) => Float32Array.from({ length: count }, (_, i) => Math.fround(Math.sin(seed + 1.7 * i)));
/** `[VOCABULARY.length, HIDDEN]` */
export const TABLE = sine(VOCABULARY.length * HIDDEN, 1);
/** `[DIM, HIDDEN]` */
export const WEIGHT = sine(DIM * HIDDEN, 5);

/** The unit vector that token `id` has: as there is no attention, the same one everywhere. */
export function vectorOf(id, projected = true) {
  const hidden = TABLE.subarray(id * HIDDEN, (id + 1) * HIDDEN);
  const out = projected
    ? Array.from({ length: DIM }, (_, i) => hidden.reduce((sum, x, k) => sum + x * WEIGHT[i * HIDDEN + k], 0))
    : [...hidden];
  const norm = Math.hypot(...out);
  return out.map((x) => x / norm);
}

/** Writes the model; `parts` leaves some of it out or replaces it: `{ config, dense, model }`. */
export function writeModel(folder, { config = {}, dense = true, model = onnx() } = {}) {
  mkdirSync(folder, { recursive: true });
  const write = (name, data) => writeFileSync(`${folder}/${name}`, typeof data === "string" || Buffer.isBuffer(data) ? data : JSON.stringify(data));
  write("model.onnx", model);
  const special = [0, 1, 2, 3, 4, 5, 6].map((id) => ({
    id, content: VOCABULARY[id], single_word: false, lstrip: false, rstrip: false, normalized: false, special: true,
  }));
  const single = [{ SpecialToken: { id: "[CLS]", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "[SEP]", type_id: 0 } }];
  const specialTokens = { "[CLS]": { id: "[CLS]", ids: [2], tokens: ["[CLS]"] }, "[SEP]": { id: "[SEP]", ids: [3], tokens: ["[SEP]"] } };
  write("tokenizer.json", {
    version: "1.0", truncation: null, padding: null, added_tokens: special, normalizer: { type: "Lowercase" },
    pre_tokenizer: { type: "Whitespace" }, decoder: null,
    post_processor: { type: "TemplateProcessing", single, pair: single, special_tokens: specialTokens },
    model: { type: "WordLevel", vocab: Object.fromEntries(VOCABULARY.map((word, id) => [word, id])), unk_token: "[UNK]" },
  });
  write("tokenizer_config.json", { tokenizer_class: "PreTrainedTokenizerFast" });
  if (config) {
    write("config_sentence_transformers.json", {
      query_prefix: "[Q] ", document_prefix: "[D] ", query_length: 8, document_length: 7, attend_to_expansion_tokens: false, skiplist_words: ["."], ...config,
    });
  }
  if (dense) {
    mkdirSync(`${folder}/1_Dense`, { recursive: true });
    write("1_Dense/config.json", { in_features: HIDDEN, out_features: DIM, bias: false, activation_function: "torch.nn.modules.linear.Identity" });
    write("1_Dense/model.safetensors", safetensors({ "linear.weight": ["F32", [DIM, HIDDEN], WEIGHT] }));
  }
}

// What follows writes protocol buffers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto names the fields.

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return Buffer.from([...bytes, value]);
}

/** A message of `[field number, value]`: numbers are varints, anything else is bytes. */
function message(...fields) {
  return Buffer.concat(fields.flatMap(([field, value]) => {
    if (typeof value === "number") return [varint(field * 8), varint(value)];
    const bytes = Buffer.from(value);
    return [varint(field * 8 + 2), varint(bytes.length), bytes];
  }));
}

/** A named value of element type `type` (1: float, 7: int64). */
function value(name, type, ...dims) {
  const shape = message(...dims.map((dim) => [1, message(typeof dim === "number" ? [1, dim] : [2, dim])]));
  return message([1, name], [2, message([1, message([1, type], [2, shape])])]);
}

/** `output = TABLE[input_ids]`. */
export function onnx({ inputs = ["input_ids", "attention_mask"], output = "last_hidden_state" } = {}) {
  const table = message([1, VOCABULARY.length], [1, HIDDEN], [2, 1], [8, "table"], [9, new Uint8Array(TABLE.buffer)]);
  const graph = message(
    [1, message([1, "table"], [1, inputs[0]], [2, output], [4, "Gather"])],
    [2, "look-up"],
    [5, table],
    ...inputs.map((name) => [11, value(name, 7, "batch", "sequence")]),
    [12, value(output, 1, "batch", "sequence", HIDDEN)],
  );
  return message([1, 8], [7, graph], [8, message([1, ""], [2, 13])]);
}
