/** Between a native binding and users: signals, errors, warnings. */
import { MaxSimError } from "../error.js";
import type { AbortSignalLike } from "../index.js";
import { argumentError } from "./check.js";
import type { Failure, Native, NativeCancel, NativeCorpus } from "./native.js";

/** An array that a call may read in place, and what errors call it. */
export interface Held {
  argument: string;
  view: ArrayBufferView;
}

/** What a package adds to its binding. */
export interface Host {
  native: Native;
  /** Shows a one-time warning. */
  warn(message: string): void;
  /** Where files have paths: that of a `file:` URL. */
  filePath?(url: string): string;
}

function failed(value: object): value is Failure {
  return "code" in value && "message" in value;
}

export function disposed(what: string): MaxSimError {
  return new MaxSimError("ERR_DISPOSED", `${what} was disposed`, { what });
}

/** Awaits native work over `inputs`, as what it promises or as an error. */
export async function settle<T extends object>(
  { native, warn }: Host,
  inputs: readonly Held[],
  signal: AbortSignalLike | undefined,
  start: (cancel?: NativeCancel) => Promise<T | Failure>,
): Promise<T> {
  if (signal?.aborted) throw signal.reason;
  const held = inputs.map(({ view }) => view.byteLength);
  const cancel = signal && native.createCancel();
  const onAbort = (): void => cancel?.cancel();
  signal?.addEventListener("abort", onAbort);
  let result: T | Failure;
  try {
    result = await start(cancel);
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
  for (const warning of native.takeWarnings()) warn(warning);
  if (signal?.aborted) {
    (result as Partial<NativeCorpus>).dispose?.();
    throw signal.reason;
  }
  if (failed(result)) throw new MaxSimError(result.code, result.message, result.details);
  const lost = inputs.find(({ view }, i) => held[i]! >= native.HOLD_BYTES && view.byteLength !== held[i]);
  if (lost !== undefined) {
    // Read in place, so what was computed may come from someone else's memory.
    (result as Partial<NativeCorpus>).dispose?.();
    throw argumentError("ERR_VALUE", lost.argument, "a buffer left alone until the call settles", "a buffer transferred meanwhile");
  }
  return result;
}
