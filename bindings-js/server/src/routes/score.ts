/** `POST /v1/score`: scores of token vectors that the client made itself. */
import type { Precision } from "@maxsim/node";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { BINARY_TYPES, ERROR_RESPONSES, WORK } from "../http/app.js";
import type { Services } from "../service.js";
import { binaryVectors, type Vectors } from "../vectors/binary.js";
import { jsonVectors, type Matrix } from "../vectors/json.js";
import { best } from "./rerank.js";

interface Options {
  normalize?: boolean;
  top_n?: number;
  precision?: Precision;
}

interface Body extends Options {
  query: Matrix;
  documents: Matrix[];
}

const OPTIONS = {
  normalize: { type: "boolean", default: false, description: "Divide every token vector by its length" },
  top_n: { type: "integer", minimum: 1, description: "Answer with the best documents, best first, instead of all scores" },
  precision: { type: "string", enum: ["default", "exact", "fast", "int8"], default: "default" },
} as const;

const TOKENS = { type: "array", items: { type: "array" } } as const;

const JSON_BODY = {
  type: "object",
  required: ["query", "documents"],
  additionalProperties: false,
  properties: {
    query: { ...TOKENS, minItems: 1, description: "[Lq][d] numbers" },
    documents: { type: "array", items: TOKENS, description: "[N][L][d] numbers, a length L for each document" },
    ...OPTIONS,
  },
} as const;

const BINARY_BODY = {
  type: "string",
  format: "binary",
  description:
    "safetensors: `query` [Lq, d]; `documents` [T, d] with `offsets` [N + 1], or [N, L, d], with `lengths` [N] if padded. " +
    "F32, F16, BF16; I8 and F8_E4M3 with `query_scales`, `documents_scales` (F32, one or one per token). " +
    "Options stand in the query string, as they may for JSON.",
} as const;

/** The route. */
export function scoreRoutes(app: FastifyInstance, { scoring, metrics }: Services): void {
  app.post<{ Body: Body | Buffer; Querystring: Options }>(
    "/v1/score",
    {
      config: WORK,
      schema: {
        summary: "Scores token vectors",
        tags: ["score"],
        querystring: { type: "object", additionalProperties: false, properties: OPTIONS },
        body: {
          content: {
            "application/json": { schema: JSON_BODY },
            ...Object.fromEntries(BINARY_TYPES.map((type) => [type, { schema: BINARY_BODY }])),
          },
        },
        response: {
          200: {
            description: "`scores` in the order of the documents, or, with `top_n`, `results`",
            type: "object",
            properties: {
              id: { type: "string" },
              scores: { type: "array", items: { type: "number" }, description: "Σ_s max_t ⟨query_s, document_t⟩" },
              results: {
                type: "array",
                items: { type: "object", properties: { index: { type: "integer" }, score: { type: "number" } } },
              },
            },
          },
          ...ERROR_RESPONSES,
        },
      },
    },
    async (request) => {
      const { vectors, options } = read(request);
      const { normalize = false, precision = "default", top_n } = options;
      const started = performance.now();
      const scores = await scoring.score({ ...vectors, normalize, precision }, request.stop);
      request.stages = { score: performance.now() - started };
      metrics.documents(scores.length);
      if (top_n === undefined) return { id: request.id, scores: Array.from(scores) };
      return { id: request.id, results: best(scores, top_n).map((index) => ({ index, score: scores[index] })) };
    },
  );
}

function read(request: FastifyRequest<{ Body: Body | Buffer; Querystring: Options }>): { vectors: Vectors; options: Options } {
  const { body, query } = request;
  if (Buffer.isBuffer(body)) return { vectors: binaryVectors(body), options: query };
  return { vectors: jsonVectors(body.query, body.documents), options: { ...query, ...body } };
}
