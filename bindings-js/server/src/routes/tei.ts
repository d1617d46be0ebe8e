/** `POST /rerank` and `GET /info`, in the shape of text-embeddings-inference. */
import type { FastifyInstance } from "fastify";
import { ERROR_RESPONSES, WORK } from "../http/app.js";
import type { Services } from "../service.js";
import { best, MAX_QUERY } from "./rerank.js";

interface Body {
  query: string;
  texts: string[];
  raw_scores?: boolean;
  return_text?: boolean;
}

/** The routes. */
export function teiRoutes(app: FastifyInstance, { config, reranking, metrics, version }: Services): void {
  app.post<{ Body: Body }>(
    "/rerank",
    {
      config: WORK,
      schema: {
        summary: "Reranks texts (text-embeddings-inference)",
        tags: ["rerank"],
        body: {
          type: "object",
          required: ["query", "texts"],
          properties: {
            query: { type: "string", minLength: 1, maxLength: MAX_QUERY },
            texts: { type: "array", minItems: 1, maxItems: config.maxDocuments, items: { type: "string" } },
            raw_scores: { type: "boolean", default: false, description: "MaxSim itself instead of MaxSim over its largest value" },
            return_text: { type: "boolean", default: false },
            truncate: { type: "boolean", description: "Accepted for compatibility: texts that are too long are always truncated" },
          },
        },
        response: {
          200: {
            description: "Texts, most relevant first",
            type: "array",
            items: {
              type: "object",
              properties: { index: { type: "integer" }, score: { type: "number" }, text: { type: "string" } },
            },
          },
          ...ERROR_RESPONSES,
        },
      },
    },
    async (request) => {
      const { query, texts, raw_scores, return_text } = request.body;
      const job = { query, documents: texts, maxTokens: config.maxTokensPerDoc };
      const { scores, relevance, encodeTime, scoreTime } = await reranking.rerank(job, request.stop);
      metrics.documents(texts.length);
      request.stages = { encode: encodeTime, score: scoreTime };
      const shown = raw_scores ? scores : relevance;
      return best(shown).map((index) => ({ index, score: shown[index], ...(return_text && { text: texts[index] }) }));
    },
  );

  app.get("/info", { schema: { summary: "The model and the limits", tags: ["operations"] } }, async () => ({
    model_id: reranking.encoder.name,
    model_type: { reranker: {} },
    dim: reranking.encoder.dim,
    max_input_length: config.maxTokensPerDoc,
    max_client_batch_size: config.maxDocuments,
    max_concurrent_requests: config.maxRequests,
    version,
  }));
}
