/** Who may come in: a bound on requests and on the bytes of their bodies, decided from the header alone. */

/** Bounds of an {@link Admission}. */
export interface Bounds {
  readonly maxRequests: number;
  readonly maxBytes: number;
}

/** Counts the requests that are in the service, and turns away what would be too many. */
export class Admission {
  requests = 0;
  bytes = 0;
  /** Since the start. */
  admitted = 0;
  /** Mean time that requests stay, in milliseconds; recent ones count most. */
  #stay = 0;
  readonly #bounds: Bounds;

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  /**
   * Lets a request in whose body has up to `bytes` bytes; the result lets it out again, once, however often it is called.
   * `undefined` if there is no room.
   */
  enter(bytes: number): (() => void) | undefined {
    const { maxRequests, maxBytes } = this.#bounds;
    if (this.requests >= maxRequests || this.bytes + bytes > maxBytes) return undefined;
    this.requests += 1;
    this.bytes += bytes;
    this.admitted += 1;
    const entered = performance.now();
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.requests -= 1;
      this.bytes -= bytes;
      this.#stay += 0.1 * (performance.now() - entered - this.#stay);
    };
  }

  /** Seconds after which those who are in now should have left: a whole number from 1 to 30, as `Retry-After` wants it. */
  get retryAfter(): number {
    return Math.min(30, Math.max(1, Math.ceil(this.#stay / 1000)));
  }
}
