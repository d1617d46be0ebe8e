/** `StaticEncoder` over a native binding. */
import type * as api from "../index.js";
import type { CallOptions, EncodedText, EncodedTexts, LoadOptions } from "../index.js";
import { argumentError, CALL, callback, describe, settings, text, type Schema } from "./check.js";
import { settle, type Host } from "./host.js";
import type { NativeEncoder } from "./native.js";

const LOAD: Schema<LoadOptions> = { onProgress: callback, ...CALL };

/** The encoder of `host`'s binding. */
export async function createStaticEncoder(host: Host, options?: LoadOptions): Promise<api.StaticEncoder> {
  const { onProgress, signal } = settings<LoadOptions>(options, "options", LOAD);
  const native = await settle(host, [], signal, (cancel) => host.native.createStaticEncoder(onProgress, cancel));
  return new StaticEncoder(host, native);
}

class StaticEncoder implements api.StaticEncoder {
  readonly name: string;
  readonly dim: number;
  readonly fingerprint: bigint;
  readonly #host: Host;
  readonly #native: NativeEncoder;

  constructor(host: Host, native: NativeEncoder) {
    this.#host = host;
    this.#native = native;
    this.name = native.name;
    this.dim = native.dim;
    this.fingerprint = native.fingerprint;
  }

  async encodeQuery(query: string, options?: CallOptions): Promise<EncodedText> {
    const checked = text(query, "text");
    const { signal } = settings<CallOptions>(options, "options", CALL);
    const encoded = await settle(this.#host, [], signal, (cancel) => this.#native.encodeQuery(checked, cancel));
    const { vectors, spans, offsets } = encoded;
    return { tokens: spell([checked], spans, offsets), spans, vectors, dim: this.dim };
  }

  async encodeDocuments(texts: readonly string[], options?: CallOptions): Promise<EncodedTexts> {
    if (!Array.isArray(texts)) throw argumentError("ERR_VALUE", "texts", "an array of strings", describe(texts));
    const checked = texts.map((document, i) => text(document, `texts[${i}]`));
    const { signal } = settings<CallOptions>(options, "options", CALL);
    const encoded = await settle(this.#host, [], signal, (cancel) => this.#native.encodeDocuments(checked, cancel));
    const { vectors, spans, offsets } = encoded;
    return new Documents(checked, vectors, spans, offsets, this.dim);
  }
}

function spell(texts: readonly string[], spans: Uint32Array, offsets: Uint32Array): string[] {
  return texts.flatMap((from, i) =>
    Array.from({ length: offsets[i + 1]! - offsets[i]! }, (_, t) => {
      const at = 2 * (offsets[i]! + t);
      return from.slice(spans[at], spans[at + 1]);
    }),
  );
}

class Documents implements EncodedTexts {
  readonly #texts: readonly string[];
  #tokens: readonly string[] | undefined;

  constructor(
    texts: readonly string[],
    readonly vectors: Float32Array,
    readonly spans: Uint32Array,
    readonly offsets: Uint32Array,
    readonly dim: number,
  ) {
    this.#texts = texts;
  }

  /** Made when asked for: a large corpus has millions of them, and few are looked at. */
  get tokens(): readonly string[] {
    return (this.#tokens ??= spell(this.#texts, this.spans, this.offsets));
  }
}
