/** A ColBERT model on a worker of its own, so that searches go on while it encodes. */
import { Tokenizer } from "@huggingface/tokenizers";
import { expose, transfer } from "comlink";
import { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";
import mjs from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import { FILES, OnnxModel } from "../../../../bindings-js/server/src/encoders/onnx-model.ts";
import type { ModelSource, Progress } from "../../protocol.ts";
import type { EncodedDocuments, EncodedQuery } from "./encoder.ts";
import { modelFiles } from "./model-files.ts";
import { alignTokens } from "./spans.ts";

let model: OnnxModel;

const api = {
  async load(source: ModelSource, report: (progress: Progress) => void): Promise<{ name: string; fingerprint: string; dim: number }> {
    env.wasm.wasmPaths = { mjs, wasm };
    // Threads need shared memory, which only isolated pages have. Half the cores: there are slow ones, and others want some.
    env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.max(1, Math.min(8, navigator.hardwareConcurrency >> 1)) : 1;
    const files = modelFiles(source, report);
    const hashes: Promise<ArrayBuffer>[] = [];
    const read = async (file: string): Promise<Uint8Array | undefined> => {
      const bytes = await files.read(file);
      if (bytes) hashes.push(crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
      return bytes;
    };
    const session = async (file: string): Promise<InferenceSession> => {
      const bytes = (await read(file))!;
      report({ what: "Starting the model", fraction: undefined });
      return InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    };
    // Small ones first: visitors wait for the download.
    model = await OnnxModel.load({ Tensor, Tokenizer, session }, { ...files, read }, FILES.toReversed());
    const all = await new Blob(await Promise.all(hashes)).arrayBuffer();
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", all)).subarray(0, 12);
    return { name: files.name, fingerprint: `onnx-${Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("")}`, dim: model.dim };
  },

  async encodeQuery(text: string): Promise<EncodedQuery> {
    const { vectors, ids } = await model.encode("query", [text], () => {});
    return { tokens: Array.from(ids, (id) => model.layout.token(id).replace(/^(##|Ġ|▁)/, "").trim()), vectors };
  },

  async encodeDocuments(texts: readonly string[]): Promise<EncodedDocuments> {
    const { vectors, offsets, ids } = await model.encode("document", texts, () => {});
    const spans = new Uint32Array(2 * ids.length);
    texts.forEach((text, i) => {
      const tokens = Array.from(ids.subarray(offsets[i], offsets[i + 1]), (id) => model.layout.token(id));
      spans.set(alignTokens(text, tokens), 2 * offsets[i]!);
    });
    return transfer({ vectors, offsets, spans }, [vectors.buffer as ArrayBuffer, offsets.buffer as ArrayBuffer, spans.buffer]);
  },
};

export type OnnxWorker = typeof api;
expose(api);
