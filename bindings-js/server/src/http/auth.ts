/** API keys, compared in constant time. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";

/** Whether the headers present one of `keys`, as `Authorization: Bearer KEY` or `X-API-Key: KEY`. No keys admit everybody. */
export function authorizer(keys: readonly string[]): (headers: IncomingHttpHeaders) => boolean {
  // Digests have one length, so comparing them tells nothing about the length of a key.
  const digests = keys.map(digest);
  return (headers) => {
    if (digests.length === 0) return true;
    const presented = digest(presentedKey(headers));
    // No early exit: the time does not say which key matched.
    return digests.reduce((found, key) => timingSafeEqual(key, presented) || found, false);
  };
}

function digest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}

function presentedKey(headers: IncomingHttpHeaders): string {
  const bearer = /^Bearer +(.+)$/i.exec(headers.authorization ?? "")?.[1];
  return bearer?.trim() ?? [headers["x-api-key"]].flat()[0] ?? "";
}
