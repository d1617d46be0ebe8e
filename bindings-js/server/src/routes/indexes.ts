/** `GET /v1/indexes` and `POST /v1/indexes/:name/search`: documents found in indexes on disk, and among texts in memory. */
import type { DocumentId, IndexSearchOptions, MetadataValue, Precision } from "@maxsim/node";
import type { FastifyInstance } from "fastify";
import { BINARY_TYPES, ERROR_RESPONSES, WORK } from "../http/app.js";
import { fieldError, HttpError } from "../http/errors.js";
import type { Searchable } from "../engine/searching.js";
import type { Services } from "../service.js";
import { binaryQuery } from "../vectors/binary.js";
import { jsonQuery, type Matrix } from "../vectors/json.js";
import { MAX_QUERY } from "./rerank.js";

interface Options {
  top_k?: number;
  filter?: string;
  parameters?: (boolean | number | string | null)[];
  ids?: (number | string)[];
  n_ivf_probe?: number;
  n_full_scores?: number;
  exact?: boolean;
  normalize?: boolean;
  precision?: Precision;
  explain?: boolean;
  return_metadata?: boolean;
}

interface Body extends Options {
  query: string | Matrix;
}

const DEFAULT_TOP_K = 10;

const SIMPLE = {
  top_k: { type: "integer", minimum: 1, maximum: 10_000, default: DEFAULT_TOP_K },
  filter: { type: "string", description: "Over metadata, in a small part of SQL: `year >= 2020 AND lang IN ('de', 'en')`" },
  n_ivf_probe: { type: "integer", minimum: 1, description: "Centroids probed per query token" },
  n_full_scores: { type: "integer", minimum: 1, description: "Documents kept by approximate score" },
  exact: { type: "boolean", default: false, description: "Score every document" },
  normalize: { type: "boolean", default: true, description: "Divide query vectors by their length; texts are encoded as they are to be scored" },
  precision: { type: "string", enum: ["default", "exact", "fast", "int8"], default: "default" },
  explain: { type: "boolean", default: false, description: "Also say which token of a hit won each query token" },
  return_metadata: { type: "boolean", default: false },
} as const;

const JSON_BODY = {
  type: "object",
  required: ["query"],
  additionalProperties: false,
  properties: {
    query: { type: ["string", "array"], minLength: 1, maxLength: MAX_QUERY, minItems: 1, items: { type: "array" }, description: "A text, or [Lq][d] numbers" },
    ...SIMPLE,
    parameters: { type: "array", items: { type: ["boolean", "number", "string", "null"] }, description: "For the question marks of `filter`" },
    ids: { type: "array", items: { type: ["integer", "string"] }, description: "Only these documents" },
  },
} as const;

/** The routes. */
export function indexRoutes(app: FastifyInstance, { searching, reranking }: Services): void {
  app.get("/v1/indexes", { schema: { summary: "The indexes", tags: ["indexes"] } }, async () => ({
    indexes: [...searching.all].map(([name, index]) => {
      const info = index.info();
      const { documents, dim, tokens, generation, ids, columns } = info;
      return { name, documents, dim, ...("nbits" in info && { nbits: info.nbits }), tokens, generation, ids, columns };
    }),
  }));

  app.post<{ Params: { name: string }; Body: Body | Buffer; Querystring: Options }>(
    "/v1/indexes/:name/search",
    {
      config: WORK,
      schema: {
        summary: "Searches an index",
        tags: ["indexes"],
        params: { type: "object", properties: { name: { type: "string" } } },
        querystring: { type: "object", additionalProperties: false, properties: SIMPLE },
        body: {
          content: {
            "application/json": { schema: JSON_BODY },
            ...Object.fromEntries(
              BINARY_TYPES.map((type) => [type, { schema: { type: "string", format: "binary", description: "safetensors with a `query` [Lq, d]" } }]),
            ),
          },
        },
        response: {
          200: {
            description: "Documents, best first",
            type: "object",
            properties: {
              id: { type: "string" },
              results: {
                type: "array",
                items: {
                  type: "object",
                  properties: {
                    id: { description: "A text or a number; numbers above 2^53 − 1 as text" },
                    score: { type: "number" },
                    metadata: { type: "object", additionalProperties: true },
                    winners: { type: "array", items: { type: "integer" }, description: "Per query token; −1 for none" },
                  },
                },
              },
            },
          },
          404: { ...ERROR_RESPONSES[400], description: "No index of that name" },
          ...ERROR_RESPONSES,
        },
      },
    },
    async (request) => {
      const { params, body, query: inUrl, stop } = request;
      const index = searching.get(params.name);
      if (!index) throw new HttpError(404, "ERR_NOT_FOUND", `name: there is no index ${JSON.stringify(params.name)}`, { field: "name" });
      const wish: Options = Buffer.isBuffer(body) ? inUrl : { ...inUrl, ...body };
      const started = performance.now();
      const query =
        Buffer.isBuffer(body) ? binaryQuery(body)
        : typeof body.query !== "string" ? jsonQuery(body.query)
        : { data: (await reranking.encoder.encode("query", [body.query], stop)).vectors, dtype: "f32" as const, dim: reranking.encoder.dim };
      const { dim } = index.info();
      if (query.dim !== dim) throw fieldError("query", `vectors of ${dim}, as the index has`, `${query.dim}`, "ERR_SHAPE");
      const encoded = performance.now();
      const isText = !Buffer.isBuffer(body) && typeof body.query === "string";
      const hits = await searching.search({ index, query, options: searchOptions(wish, index, isText) }, stop);
      request.stages = { encode: encoded - started, search: performance.now() - encoded };
      const rows = wish.return_metadata ? await Promise.all(hits.map(({ id }) => index.metadata(id))) : [];
      return {
        id: request.id,
        results: hits.map(({ id, score, winners }, i) => ({
          id: plain(id),
          score,
          ...(wish.return_metadata && { metadata: Object.fromEntries(Object.entries(rows[i] ?? {}).map(([column, value]) => [column, plain(value)])) }),
          ...(winners && { winners: Array.from(winners) }),
        })),
      };
    },
  );
}

function searchOptions(wish: Options, index: Searchable, isText: boolean): Omit<IndexSearchOptions, "signal"> {
  const { top_k = DEFAULT_TOP_K, n_ivf_probe, n_full_scores, ids, filter, parameters, exact, precision, explain } = wish;
  return {
    topK: top_k,
    nIvfProbe: n_ivf_probe,
    nFullScores: n_full_scores,
    exact,
    explain,
    precision,
    filter,
    parameters,
    ids: ids?.map((id, i) => documentId(id, index.info().ids, `ids[${i}]`)),
    // Encoders give queries the lengths they are to have.
    normalize: isText ? false : wish.normalize,
  };
}

function documentId(id: number | string, kind: "number" | "text", field: string): DocumentId {
  if (kind === "text") return String(id);
  if (!/^\d{1,20}$/.test(String(id))) throw fieldError(field, "a number, as the index has", JSON.stringify(id), "ERR_INDEX");
  return BigInt(id);
}

/** JSON has no large integers. */
function plain(value: MetadataValue): string | number | boolean | null {
  if (typeof value !== "bigint") return value;
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : String(value);
}
