// What cases need, without anything of Node's: assertions, random tokens, and MaxSim as SPEC words it, in float64.

export class Failed extends Error {}

export function ok(condition, message = "expected something true") {
  if (!condition) throw new Failed(message);
}

const show = (value) =>
  JSON.stringify(value, (_, v) => (ArrayBuffer.isView(v) ? [...v].map(String) : typeof v === "bigint" ? `${v}n` : v));

/** Same structure and, for typed arrays, same elements. */
export function equal(actual, expected, what = "value") {
  ok(show(actual) === show(expected), `${what}: got ${show(actual)}, expected ${show(expected)}`);
}

/** `|Δ| ≤ tolerance · max(1, |expected|)`, element by element. */
export function close(actual, expected, tolerance = 1e-5, what = "scores") {
  ok(actual.length === expected.length, `${what}: ${actual.length} elements, expected ${expected.length}`);
  for (let i = 0; i < expected.length; i++) {
    const limit = tolerance * Math.max(1, Math.abs(expected[i]));
    ok(Math.abs(actual[i] - expected[i]) <= limit, `${what}[${i}]: got ${actual[i]}, expected ${expected[i]}`);
  }
}

/** `|Δ| ≤ tolerance · largest |expected|`, element by element: how gradients are compared. */
export function closeAll(actual, expected, tolerance, what) {
  ok(actual.length === expected.length, `${what}: ${actual.length} elements, expected ${expected.length}`);
  const limit = tolerance * Math.max(...expected.map(Math.abs), 1e-6);
  for (let i = 0; i < expected.length; i++) {
    ok(Math.abs(actual[i] - expected[i]) <= limit, `${what}[${i}]: got ${actual[i]}, expected ${expected[i]}`);
  }
}

/** Gradient of `f` at `x`, numbers to a number, by central differences; the small step keeps winners the same. */
export function differences(f, x, step = 1e-6) {
  const at = Float64Array.from(x);
  return Array.from(at, (value, i) => {
    at[i] = value + step;
    const above = f(at);
    at[i] = value - step;
    const below = f(at);
    at[i] = value;
    return (above - below) / (2 * step);
  });
}

/** The reason `promise` rejects with. */
export async function rejection(promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  throw new Failed(`expected a rejection, got ${show(value)}`);
}

/** `promise` rejects with a `MaxSimError` of this code about this argument. */
export async function rejects(api, promise, code, argument) {
  const error = await rejection(promise);
  ok(error instanceof api.MaxSimError, `expected a MaxSimError, got ${error?.stack ?? error}`);
  ok(error instanceof Error && error.name === "MaxSimError", "a MaxSimError is an Error of that name");
  equal(error.code, code, `code of "${error.message}"`);
  equal(error.details.argument, argument, `argument of "${error.message}"`);
  if (argument !== undefined) ok(error.message.startsWith(argument), `"${error.message}" starts with ${argument}`);
  return error;
}

/** Numbers in −1 … 1, the same in every run (Marsaglia's xorshift). */
export function random(seed) {
  let x = seed * 2654435761 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 31 - 1;
  };
}

export function vectors(seed, elements) {
  const next = random(seed);
  return Float32Array.from({ length: elements }, next);
}

/** f32 → f16 bits, nearest even, and back. Small values flush to zero: cases have none. */
export function toF16(x) {
  const f = new Float32Array([x]);
  const bits = new Uint32Array(f.buffer)[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude < 0x38800000) return sign;
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

export function fromF16(h) {
  const e = (h >>> 10) & 31;
  const m = h & 1023;
  const magnitude = e === 0 ? m * 2 ** -24 : (1 + m / 1024) * 2 ** (e - 15);
  return h & 0x8000 ? -magnitude : magnitude;
}

export function toBf16(x) {
  const bits = new Uint32Array(new Float32Array([x]).buffer)[0];
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

export const fromBf16 = (h) => new Float32Array(new Uint32Array([h << 16]).buffer)[0];

/** e4m3fn byte → number. */
export function fromE4m3(byte) {
  const e = (byte >> 3) & 15;
  const m = byte & 7;
  const magnitude = e === 0 ? m / 512 : (1 + m / 8) * 2 ** (e - 7);
  return byte & 128 ? -magnitude : magnitude;
}

/** Sequences of kept tokens, each `{ at, x }`: position in its sequence and vector. `values` are numbers. */
export function sequences({ values, dim, shape, offsets, mask, lengths, scales }) {
  const rows = values.length / dim;
  const len = shape?.at(-2);
  const n = offsets ? offsets.length - 1 : rows / (len || 1);
  const range = (i) => (offsets ? [offsets[i], offsets[i + 1]] : [i * len, i * len + (lengths ? lengths[i] : len)]);
  return Array.from({ length: n }, (_, i) => {
    const [first, last] = range(i);
    const tokens = [];
    tokens.extent = offsets ? last - first : len;
    for (let row = first; row < last; row++) {
      if (mask && !mask[row]) continue;
      const scale = scales === undefined ? 1 : scales.length === 1 ? scales[0] : scales[row];
      tokens.push({ at: row - first, x: Array.from(values.slice(row * dim, (row + 1) * dim), (v) => v * scale) });
    }
    return tokens;
  });
}

/** `centroids[code] + bucketWeights[bucket]` of every code, in float64, one after the other. */
export function decode({ codes, residuals, centroids, bucketWeights, nbits, layout }) {
  const dim = centroids.shape[1];
  const width = Math.ceil((dim * nbits) / 8);
  const bit = (row, k) => (residuals[row * width + (k >> 3)] >> (layout === "plaid" ? 7 - (k & 7) : k & 7)) & 1;
  return Array.from(codes, (code, row) =>
    Array.from({ length: dim }, (_, f) => {
      let bucket = 0;
      for (let k = 0; k < nbits; k++) bucket |= bit(row, f * nbits + k) << k;
      return centroids.data[code * dim + f] + bucketWeights[bucket];
    }),
  ).flat();
}

export const unit = (x) => {
  const norm = Math.max(Math.hypot(...x), 1e-6);
  return x.map((v) => v / norm);
};

/** Score and winners of one query with one document. */
export function score(query, document, normalize = false) {
  const vector = (token) => (normalize ? unit(token.x) : token.x);
  const winners = new Array(query.extent).fill(-1);
  let total = 0;
  for (const token of query) {
    let best = -Infinity;
    for (const other of document) {
      const q = vector(token);
      const similarity = vector(other).reduce((sum, v, c) => sum + v * q[c], 0);
      if (similarity > best) [best, winners[token.at]] = [similarity, other.at];
    }
    if (winners[token.at] >= 0) total += best;
  }
  return { score: total, winners };
}

/** Scores and winners of pairs of sequences, in order. */
export function scores(pairs, normalize) {
  const results = pairs.map(([q, d]) => score(q, d, normalize));
  return { scores: results.map((r) => r.score), argmax: results.flatMap((r) => r.winners) };
}

export const cross = (qs, ds) => qs.flatMap((q) => ds.map((d) => [q, d]));

/** The `k` best of a row of scores: score descending, then index. */
export function best(row, k, largest = true) {
  const order = [...row.keys()].sort((a, b) => (largest ? row[b] - row[a] : row[a] - row[b]) || a - b);
  return order.slice(0, k);
}
