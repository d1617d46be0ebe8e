/** ColBERT models in ONNX, in a worker thread. Needs the packages onnxruntime-node and @huggingface/tokenizers. */
import { basename, resolve as absolute } from "node:path";
import { Worker } from "node:worker_threads";
import { MaxSimError, type ErrorCode } from "@maxsim/node";
import type { Encoded, Encoder, TextKind } from "./encoder.js";

/** What the worker starts with. */
export interface Start {
  readonly folder: string;
  readonly threads: number | undefined;
}

/** Messages to the worker. */
export type ToWorker = { readonly id: number; readonly kind: TextKind; readonly texts: readonly string[] } | { readonly cancel: number };

interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
}

/** Messages from the worker: what became of loading, then what became of each request. */
export type FromWorker =
  | { readonly dim: number }
  | { readonly failure: Failure }
  | ({ readonly id: number } & Encoded)
  | { readonly id: number; readonly error: Failure };

interface Pending {
  resolve(encoded: Encoded): void;
  reject(reason: unknown): void;
}

/**
 * The model in `folder`; see {@link OnnxModel.load} for what has to be there.
 *
 * @throws {MaxSimError} as {@link OnnxModel.load} does.
 */
export async function onnxEncoder(folder: string, threads: number | undefined): Promise<Encoder> {
  const worker = new Worker(new URL("./onnx-worker.js", import.meta.url), { workerData: { folder, threads } satisfies Start });
  const dim = await new Promise<number>((resolve, reject) => {
    worker.once("message", (message: FromWorker) => {
      if ("dim" in message) resolve(message.dim);
      else if ("failure" in message) reject(new MaxSimError(message.failure.code, message.failure.message));
    });
    worker.once("error", reject);
  }).catch(async (error: unknown) => {
    await worker.terminate();
    throw error;
  });
  return new OnnxEncoder(worker, basename(absolute(folder)), dim);
}

class OnnxEncoder implements Encoder {
  // A few thousand tokens: enough to fill the model, short enough that nobody waits long behind it.
  readonly maxBatch = 16 * 1024;
  // The runtime's threads share one batch out among them.
  readonly concurrency = 1;
  failure: Error | undefined;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #next = 0;

  constructor(worker: Worker, readonly name: string, readonly dim: number) {
    this.#worker = worker;
    worker.on("message", (message: FromWorker) => this.#answer(message));
    worker.on("error", (error) => this.#fail(error));
    worker.on("exit", (code) => this.#fail(new Error(`the worker of the encoder ended with ${code}`)));
  }

  encode(kind: TextKind, texts: readonly string[], signal: AbortSignal): Promise<Encoded> {
    return new Promise((resolve, reject) => {
      if (this.failure) return reject(this.failure);
      if (signal.aborted) return reject(signal.reason);
      const id = this.#next++;
      const cancel = (): void => {
        this.#pending.delete(id);
        this.#post({ cancel: id });
        reject(signal.reason);
      };
      const settled = <T>(settle: (value: T) => void) => (value: T) => {
        signal.removeEventListener("abort", cancel);
        settle(value);
      };
      signal.addEventListener("abort", cancel, { once: true });
      this.#pending.set(id, { resolve: settled(resolve), reject: settled(reject) });
      this.#post({ id, kind, texts });
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #answer(message: FromWorker): void {
    if (!("id" in message)) return;
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if ("error" in message) pending?.reject(new MaxSimError(message.error.code, message.error.message));
    else pending?.resolve({ vectors: message.vectors, offsets: message.offsets });
  }

  #fail(error: Error): void {
    this.failure ??= error;
    for (const { reject } of this.#pending.values()) reject(this.failure);
    this.#pending.clear();
  }
}
