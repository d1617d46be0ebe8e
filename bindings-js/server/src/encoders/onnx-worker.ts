/** The worker of `onnx.ts`: messages in, vectors out. */
import { parentPort, workerData } from "node:worker_threads";
import { MaxSimError } from "@maxsim/node";
import type { FromWorker, Start, ToWorker } from "./onnx.js";
import { OnnxModel } from "./onnx-model.js";

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

try {
  const model = await OnnxModel.load(folder, threads);
  port.on("message", (message: ToWorker) => {
    if ("texts" in message) last = last.then(() => work(model, message));
    else cancelled.add(message.cancel);
  });
  post({ dim: model.dim });
} catch (error) {
  post({ failure: failed(error) });
}
