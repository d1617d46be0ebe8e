// What the training examples share: pairs of words and their meanings, a projection, and an optimiser.
import { readFileSync } from "node:fs";
import { createStaticEncoder } from "@maxsim/node";

const GLOSSES = new URL("../../../crates/encode/assets/wordnet-glosses.tsv", import.meta.url);

/** Numbers from 0 to 1, the same in every run (mulberry32). */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), seed | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** In place, by Fisher and Yates. */
export function shuffle(list, next) {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}

/**
 * Token vectors of `count` English nouns (queries, as long as a token is important) and their WordNet glosses (documents,
 * of unit length): `{ q, d }`, each `[tokens, dim]`.
 */
export async function wordPairs(count, next) {
  const lines = shuffle(readFileSync(GLOSSES, "utf8").trimEnd().split("\n"), next).slice(0, count);
  const texts = lines.map((line) => line.split("\t"));
  const encoder = await createStaticEncoder();
  const { vectors, offsets, dim } = await encoder.encodeDocuments(texts.map(([, gloss]) => gloss));
  const queries = await Promise.all(texts.map(([word]) => encoder.encodeQuery(word)));
  const pairs = queries.map(({ vectors: q }, i) => ({ q, d: vectors.slice(offsets[i] * dim, offsets[i + 1] * dim) }));
  // A rare character is no token; a pair without any teaches nothing.
  return { dim, pairs: pairs.filter(({ q, d }) => q.length > 0 && d.length > 0) };
}

/** Sequences `[tokens, dim]` behind one another, as tokens for maxsim. */
export function pack(sequences, dim) {
  const offsets = new Uint32Array(sequences.length + 1);
  sequences.forEach((x, i) => (offsets[i + 1] = offsets[i] + x.length / dim));
  const data = new Float32Array(offsets[sequences.length] * dim);
  sequences.forEach((x, i) => data.set(x, offsets[i] * dim));
  return { data, dim, offsets };
}

/** Copies rows between packed data and `[N, len, dim]`, in one direction or the other. */
function copyRows(from, to, { offsets }, len, dim, padding) {
  for (let i = 0; i + 1 < offsets.length; i++) {
    const [packed, padded] = [offsets[i] * dim, i * len * dim];
    const [at, into] = padding ? [packed, padded] : [padded, packed];
    to.set(from.subarray(at, at + (offsets[i + 1] - offsets[i]) * dim), into);
  }
  return to;
}

/** Packed `data` as `[N, len, dim]`. */
export const pad = (data, tokens, len, dim) =>
  copyRows(data, new Float32Array((tokens.offsets.length - 1) * len * dim), tokens, len, dim, true);

/** `[N, len, dim]` as packed data. */
export const unpad = (data, tokens, len, dim) =>
  copyRows(data, new Float32Array(tokens.offsets.at(-1) * dim), tokens, len, dim, false);

/** A random projection `[rows, columns]` that keeps lengths on average. */
export function projection(rows, columns, next) {
  const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return Float32Array.from({ length: rows * columns }, () => normal() / Math.sqrt(rows));
}

/** `x · wᵀ`: `[T, columns]` → `[T, rows]`; `rows` is a multiple of 4, so that four sums can grow at a time. */
export function project(x, w, columns) {
  const rows = w.length / columns;
  const out = new Float32Array((x.length / columns) * rows);
  for (let t = 0, at = 0; t < x.length; t += columns) {
    for (let r = 0; r < w.length; r += 4 * columns) {
      let [a, b, c, d] = [0, 0, 0, 0];
      for (let i = 0, k = r; i < columns; i++, k++) {
        const v = x[t + i];
        a += v * w[k];
        b += v * w[k + columns];
        c += v * w[k + 2 * columns];
        d += v * w[k + 3 * columns];
      }
      out[at++] = a;
      out[at++] = b;
      out[at++] = c;
      out[at++] = d;
    }
  }
  return out;
}

/** Adds the gradient of `w` in `x · wᵀ` to `into`, given that of the product. */
export function projectBackward(gradient, x, into, columns) {
  const rows = into.length / columns;
  for (let t = 0; t * rows < gradient.length; t++) {
    for (let r = 0; r < rows; r++) {
      const g = gradient[t * rows + r];
      // Most document tokens win nothing.
      if (g !== 0) for (let c = 0; c < columns; c++) into[r * columns + c] += g * x[t * columns + c];
    }
  }
}

/** Softmax of one row. */
export function softmax(row, temperature = 1) {
  const largest = Math.max(...row);
  const e = Array.from(row, (x) => Math.exp((x - largest) / temperature));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

/** Adam (Kingma & Ba, 2015) on `w`, in place. */
export function adam(w, rate) {
  const [m, v] = [new Float64Array(w.length), new Float64Array(w.length)];
  let step = 0;
  return (gradient) => {
    step++;
    const scale = (rate * Math.sqrt(1 - 0.999 ** step)) / (1 - 0.9 ** step);
    for (let i = 0; i < w.length; i++) {
      m[i] += 0.1 * (gradient[i] - m[i]);
      v[i] += 0.001 * (gradient[i] ** 2 - v[i]);
      w[i] -= (scale * m[i]) / (Math.sqrt(v[i]) + 1e-8);
    }
  };
}

/** Whether the module at `url` is what Node was started with. */
export const isMain = (url) => process.argv[1] !== undefined && url === new URL(`file://${process.argv[1]}`).href;
