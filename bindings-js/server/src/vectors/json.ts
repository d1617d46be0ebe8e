/** The JSON body of `/v1/score`: vectors as nested arrays. */
import { describe, fieldError } from "../http/errors.js";
import type { Vectors } from "./binary.js";

/** Token vectors, `[tokens][d]`. */
export type Matrix = readonly (readonly number[])[];

/**
 * `query [Lq][d]` and `documents [N][L][d]`, documents of any length; schemas have made sure that they are arrays.
 *
 * @throws {HttpError} naming the first vector of another length, or the first element that is no finite number of f32.
 */
export function jsonVectors(query: Matrix, documents: readonly Matrix[]): Vectors {
  const q = jsonQuery(query);
  const { dim } = q;
  const offsets = new Uint32Array(documents.length + 1);
  documents.forEach((tokens, i) => (offsets[i + 1] = offsets[i]! + tokens.length));
  const data = new Float32Array(offsets[documents.length]! * dim);
  documents.forEach((tokens, i) => flatten(tokens, dim, data, offsets[i]!, `documents[${i}]`));
  return { query: q, documents: { data, dtype: "f32", dim, offsets } };
}

/** `query [Lq][d]` alone. */
export function jsonQuery(query: Matrix): Vectors["query"] {
  const dim = query[0]!.length;
  if (dim === 0) throw fieldError("query[0]", "at least 1 number", "none", "ERR_SHAPE");
  const data = new Float32Array(query.length * dim);
  flatten(query, dim, data, 0, "query");
  return { data, dtype: "f32", dim };
}

function flatten(tokens: Matrix, dim: number, into: Float32Array, row: number, field: string): void {
  tokens.forEach((vector, t) => {
    if (!Array.isArray(vector)) throw fieldError(`${field}[${t}]`, "an array of numbers", describe(vector), "ERR_DTYPE");
    if (vector.length !== dim) {
      throw fieldError(`${field}[${t}]`, `${dim} numbers, as query[0] has`, `${vector.length}`, "ERR_SHAPE");
    }
    const start = (row + t) * dim;
    for (let k = 0; k < dim; k++) {
      const value: unknown = vector[k];
      const name = (): string => `${field}[${t}][${k}]`;
      if (typeof value !== "number") throw fieldError(name(), "a number", describe(value), "ERR_DTYPE");
      into[start + k] = value;
      if (!Number.isFinite(into[start + k])) throw fieldError(name(), "a finite f32", String(value), "ERR_NON_FINITE");
    }
  });
}
