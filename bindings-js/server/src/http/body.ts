/** Binary bodies, received into one buffer. */
import type { IncomingMessage } from "node:http";
import { HttpError } from "./errors.js";

/**
 * The whole body of `message`. With a `Content-Length` its bytes are written straight to where they stay: joining several
 * megabytes afterwards costs as much as scoring them.
 *
 * @throws {HttpError} 413 once it is longer than `limit`, 400 if it ends early.
 */
export function receive(message: IncomingMessage, limit: number): Promise<Buffer> {
  const declared = Number(message.headers["content-length"] ?? NaN);
  return new Promise((resolve, reject) => {
    let buffer = Buffer.allocUnsafeSlow(Number.isSafeInteger(declared) ? Math.min(declared, limit) : 64 * 1024);
    let length = 0;
    const take = (chunk: Buffer): void => {
      const end = length + chunk.length;
      if (end > limit) {
        // What is still coming flows into nothing, so that the client gets to read the answer.
        message.off("data", take).resume();
        return reject(tooLarge(limit));
      }
      if (end > buffer.length) {
        const larger = Buffer.allocUnsafeSlow(Math.min(limit, Math.max(end, 2 * buffer.length)));
        buffer.copy(larger, 0, 0, length);
        buffer = larger;
      }
      chunk.copy(buffer, length);
      length = end;
    };
    message.on("data", take);
    message.once("end", () => resolve(buffer.subarray(0, length)));
    message.once("error", reject);
    message.once("close", () => reject(new HttpError(400, "ERR_FORMAT", "body: ended early", { field: "body" })));
  });
}

/** 413, about the body. */
export function tooLarge(limit: number, got?: number): HttpError {
  const expected = `at most ${limit} bytes`;
  const details = { field: "body", expected, ...(got === undefined ? {} : { got: `${got}` }) };
  return new HttpError(413, "ERR_LIMIT", `body: expected ${expected}${got === undefined ? "" : `, got ${got}`}`, details);
}
