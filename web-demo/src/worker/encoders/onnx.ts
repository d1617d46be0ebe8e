/** A ColBERT model in ONNX, as PyLate saves them, that the visitor brings. */
import { proxy, wrap } from "comlink";
import type { ModelSource, Progress } from "../../protocol.ts";
import type { Encoder } from "./encoder.ts";
import type { OnnxWorker } from "./onnx.worker.ts";

/** Loads the model. Rejects with `signal.reason`, and with what is wrong with its files. */
export async function onnxEncoder(source: ModelSource, report: (progress: Progress) => void, signal: AbortSignal): Promise<Encoder> {
  report({ what: "Loading the model", fraction: undefined });
  const worker = new Worker(new URL("./onnx.worker.ts", import.meta.url), { type: "module", name: "model" });
  const model = wrap<OnnxWorker>(worker);
  const aborted = new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true }));
  aborted.catch(() => {});
  const failed = new Promise<never>((_, reject) => {
    worker.addEventListener("error", (event) => reject(new Error(event.message || "the worker of the model cannot be loaded")), { once: true });
  });
  failed.catch(() => {});
  const answer = <T>(work: Promise<T>): Promise<T> => Promise.race([work, failed]);
  try {
    const { name, fingerprint, dim } = await Promise.race([answer(model.load(source, proxy(report))), aborted]);
    return {
      name,
      fingerprint,
      dim,
      batch: 8,
      encodeQuery: (text) => answer(model.encodeQuery(text)),
      encodeDocuments: async (texts, during) => {
        during.throwIfAborted();
        return answer(model.encodeDocuments(texts));
      },
      dispose: () => worker.terminate(),
    };
  } catch (error) {
    worker.terminate();
    throw error;
  }
}
