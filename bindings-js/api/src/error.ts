/**
 * Stable code of a {@link MaxSimError}; the same string in Rust, in Node, in browsers and on the command line.
 *
 * An abort has no code here: an aborted call rejects with `signal.reason`. `ERR_INTERNAL` is a defect of maxsim.
 */
export type ErrorCode =
  | "ERR_SHAPE"
  | "ERR_DTYPE"
  | "ERR_VALUE"
  | "ERR_INDEX"
  | "ERR_NON_FINITE"
  | "ERR_UNSUPPORTED"
  | "ERR_LIMIT"
  | "ERR_OUT_OF_MEMORY"
  | "ERR_COMPILE"
  | "ERR_DEVICE_LOST"
  | "ERR_DISPOSED"
  | "ERR_FORMAT"
  | "ERR_VERSION"
  | "ERR_CORRUPT"
  | "ERR_LOCKED"
  | "ERR_IO"
  | "ERR_INTERNAL";

/** What is known about an error beyond its message; which entries are there depends on the code. */
export interface ErrorDetails {
  /**
   * The argument at fault: a parameter (`q`, `pairQIdx`), a field of one (`q.offsets`), or an option (`topK`).
   * The fields of `engine.corpus({...})` stand alone (`offsets`).
   */
  readonly argument?: string;
  /** Index within that argument: an element, offset, length or pair. */
  readonly position?: number;
  /** What the argument allows. */
  readonly expected?: string;
  /** What came. */
  readonly got?: string;
  readonly [key: string]: unknown;
}

/** Every error of maxsim. `message` is for people, `code` and `details` for programs. */
export class MaxSimError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.details = details;
  }

  static {
    // On the prototype, where Error has it too: an own property would show up when errors are printed or compared.
    Object.defineProperty(this.prototype, "name", { value: "MaxSimError", configurable: true, writable: true });
  }
}
