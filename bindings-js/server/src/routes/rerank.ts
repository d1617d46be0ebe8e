/** `POST /v1/rerank` and `/v2/rerank`, in the shape of Cohere and Jina. */
import type { FastifyInstance } from "fastify";
import { ERROR_RESPONSES, WORK } from "../http/app.js";
import { fieldError } from "../http/errors.js";
import type { Services } from "../service.js";

interface Body {
  query: string;
  documents: (string | Record<string, unknown>)[];
  top_n?: number;
  return_documents?: boolean;
  max_tokens_per_doc?: number;
  rank_fields?: string[];
}

/** Characters of a query. Longer ones are documents by mistake, and would meet every token of every candidate. */
export const MAX_QUERY = 16 * 1024;

const RESPONSE = {
  description: "Documents, most relevant first",
  type: "object",
  properties: {
    id: { type: "string" },
    model: { type: "string", description: "The model that the service runs, whatever the request asked for" },
    results: {
      type: "array",
      items: {
        type: "object",
        properties: {
          index: { type: "integer", description: "Position in the request's documents" },
          relevance_score: {
            type: "number",
            description: "MaxSim over the sum of the query tokens' norms: −1 to 1, comparable between queries of a model",
          },
          document: { type: "object", additionalProperties: true },
        },
      },
    },
    usage: { type: "object", properties: { total_tokens: { type: "integer" } } },
    meta: {
      type: "object",
      properties: {
        api_version: { type: "object", properties: { version: { type: "string" } } },
        tokens: { type: "object", properties: { input_tokens: { type: "integer" } } },
      },
    },
  },
} as const;

/** The routes. */
export function rerankRoutes(app: FastifyInstance, { config, reranking, metrics }: Services): void {
  const schema = {
    type: "object",
    required: ["query", "documents"],
    properties: {
      model: { type: "string", description: "Accepted for compatibility: a service runs one model" },
      query: { type: "string", minLength: 1, maxLength: MAX_QUERY },
      documents: {
        type: "array",
        minItems: 1,
        maxItems: config.maxDocuments,
        items: { type: ["string", "object"] },
        description: "Texts, or objects with a `text` or with the fields that `rank_fields` names",
      },
      top_n: { type: "integer", minimum: 1, description: "Default: all" },
      return_documents: { type: "boolean", default: false },
      max_tokens_per_doc: { type: "integer", minimum: 1, default: config.maxTokensPerDoc },
      rank_fields: { type: "array", minItems: 1, items: { type: "string" }, description: "Fields that are ranked; default `text`" },
    },
  } as const;

  for (const version of ["1", "2"] as const) {
    app.post<{ Body: Body }>(
      `/v${version}/rerank`,
      {
        config: WORK,
        schema: {
          summary: "Reranks texts (Cohere, Jina)", tags: ["rerank"], body: schema, response: { 200: RESPONSE, ...ERROR_RESPONSES },
        },
      },
      async (request) => {
        const { query, documents, top_n, return_documents, rank_fields, max_tokens_per_doc } = request.body;
        const texts = documents.map((document, i) => textOf(document, rank_fields, `documents[${i}]`));
        const maxTokens = max_tokens_per_doc ?? config.maxTokensPerDoc;
        const { relevance, tokens, encodeTime, scoreTime } = await reranking.rerank({ query, documents: texts, maxTokens }, request.stop);
        metrics.documents(texts.length);
        request.stages = { encode: encodeTime, score: scoreTime };
        return {
          id: request.id,
          model: reranking.encoder.name,
          results: best(relevance, top_n).map((index) => ({
            index,
            relevance_score: relevance[index],
            ...(return_documents && { document: documentOf(documents[index]!) }),
          })),
          usage: { total_tokens: tokens },
          meta: { api_version: { version }, tokens: { input_tokens: tokens } },
        };
      },
    );
  }
}

function textOf(document: string | Record<string, unknown>, fields: readonly string[] = ["text"], field: string): string {
  if (typeof document === "string") return document;
  return fields
    .map((name) => {
      const text = Object.hasOwn(document, name) ? document[name] : undefined;
      if (typeof text !== "string") throw fieldError(`${field}.${name}`, "string", text === undefined ? "none" : typeof text, "ERR_DTYPE");
      return text;
    })
    .join("\n");
}

function documentOf(document: string | Record<string, unknown>): Record<string, unknown> {
  return typeof document === "string" ? { text: document } : document;
}

/** Positions of the `count` largest scores, largest first; the lower position first among equals. */
export function best(scores: Float32Array, count = scores.length): number[] {
  return Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b).slice(0, count);
}
