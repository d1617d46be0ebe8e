/** The worker of `onnx.ts`: messages in, vectors out. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import { MaxSimError } from "@maxsim/node";
import type { FromWorker, Start, ToWorker } from "./onnx.js";
import { OnnxModel, type ModelFiles, type Runtime } from "./onnx-model.js";

const port = parentPort!;
const { folder, threads } = workerData as Start;
const cancelled = new Set<number>();
let last: Promise<unknown> = Promise.resolve();

function post(message: FromWorker, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

function failed(error: unknown): { code: MaxSimError["code"]; message: string } {
  return { code: error instanceof MaxSimError ? error.code : "ERR_INTERNAL", message: (error as Error).message };
}

async function work(model: OnnxModel, { id, kind, texts }: Extract<ToWorker, { texts: unknown }>): Promise<void> {
  try {
    const { vectors, offsets } = await model.encode(kind, texts, () => {
      if (cancelled.has(id)) throw new Error("cancelled");
    });
    post({ id, vectors, offsets }, [vectors.buffer as ArrayBuffer, offsets.buffer as ArrayBuffer]);
  } catch (error) {
    post({ id, error: failed(error) });
  } finally {
    cancelled.delete(id);
  }
}

const files: ModelFiles = {
  name: folder,
  has: async (file) => existsSync(join(folder, file)),
  read: async (file) => (existsSync(join(folder, file)) ? readFile(join(folder, file)) : undefined),
};

/** `threads` as ONNX Runtime has them; undefined: its choice. */
async function runtime(): Promise<Runtime> {
  const [{ InferenceSession, Tensor }, { Tokenizer }] = await Promise.all([
    optional(() => import("onnxruntime-node"), "onnxruntime-node"),
    optional(() => import("@huggingface/tokenizers"), "@huggingface/tokenizers"),
  ]);
  const options = { executionProviders: ["cpu"], intraOpNumThreads: threads ?? 0 };
  // By its path: large models keep their weights in files beside it.
  return { Tensor, Tokenizer, session: (file) => InferenceSession.create(join(folder, file), options) };
}

async function optional<T>(load: () => Promise<T>, name: string): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    const hint = "npm install onnxruntime-node @huggingface/tokenizers";
    throw new MaxSimError("ERR_UNSUPPORTED", `ONNX models need the package ${name} (${hint}): ${(cause as Error).message}`, { hint }, { cause });
  }
}

try {
  const model = await OnnxModel.load(await runtime(), files);
  port.on("message", (message: ToWorker) => {
    if ("texts" in message) last = last.then(() => work(model, message));
    else cancelled.add(message.cancel);
  });
  post({ dim: model.dim });
} catch (error) {
  post({ failure: failed(error) });
}
