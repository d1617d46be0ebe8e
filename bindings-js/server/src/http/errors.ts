/** Errors as responses: one body for all of them, which names the field at fault. */
import { MaxSimError } from "@maxsim/node";
import type { FastifyError } from "fastify";

/** Body of every error response. */
export interface ErrorBody {
  /** For people. */
  message: string;
  /** For programs: a code of maxsim, or one of this service. */
  code: string;
  /** Where in the request: `documents[3].text`, `query`, `headers`, `body`. */
  field?: string;
  expected?: string;
  got?: string;
  /** Element of the field's data, where it is binary. */
  position?: number;
}

/** JSON schema of {@link ErrorBody}. */
export const ERROR_SCHEMA = {
  type: "object",
  required: ["message", "code"],
  properties: {
    message: { type: "string" },
    code: { type: "string", description: "Stable; `ERR_…` of maxsim or of this service" },
    field: { type: "string", description: "Where in the request, e.g. `documents[3].text`" },
    expected: { type: "string" },
    got: { type: "string" },
    position: { type: "integer", description: "Element of a binary field" },
    error: { type: "string", description: "As `message`; `/rerank` only" },
    error_type: { type: "string", description: "As text-embeddings-inference; `/rerank` only" },
  },
} as const;

/** An error with its status. */
export class HttpError extends Error {
  constructor(
    readonly statusCode: number,
    readonly code: string,
    message: string,
    readonly details: Omit<ErrorBody, "message" | "code"> = {},
  ) {
    super(message);
  }

  static {
    Object.defineProperty(this.prototype, "name", { value: "HttpError", configurable: true, writable: true });
  }
}

/** A field that is not what it should be. */
export function fieldError(field: string, expected: string, got: string, code = "ERR_VALUE"): HttpError {
  return new HttpError(400, code, `${field}: expected ${expected}, got ${got}`, { field, expected, got });
}

/** A value in a message: short, whatever it is. */
export function describe(value: unknown): string {
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === "object" && value !== null) return "an object";
  return String(value);
}

/** Codes of maxsim that are about what the client sent. */
const INPUT = new Set(["ERR_SHAPE", "ERR_DTYPE", "ERR_VALUE", "ERR_INDEX", "ERR_NON_FINITE", "ERR_LIMIT"]);

/** Codes of Fastify and Node that are about the request as a whole. */
const REQUEST: Record<string, { code: string; field: string; expected?: string }> = {
  FST_ERR_CTP_INVALID_JSON_BODY: { code: "ERR_FORMAT", field: "body", expected: "JSON" },
  FST_ERR_CTP_EMPTY_JSON_BODY: { code: "ERR_FORMAT", field: "body", expected: "JSON" },
  FST_ERR_CTP_BODY_TOO_LARGE: { code: "ERR_LIMIT", field: "body" },
  FST_ERR_CTP_INVALID_MEDIA_TYPE: { code: "ERR_FORMAT", field: "headers.content-type", expected: "application/json" },
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: { code: "ERR_FORMAT", field: "headers.content-length", expected: "the length of the body" },
};

/** Status and body of whatever a request threw. */
export function errorResponse(error: unknown): { status: number; body: ErrorBody } {
  if (error instanceof HttpError) {
    return { status: error.statusCode, body: { message: error.message, code: error.code, ...error.details } };
  }
  if (error instanceof MaxSimError) return engineError(error);
  const { code = "", statusCode = 500, message, validation, validationContext } = error as FastifyError;
  if (validation?.[0] !== undefined) return { status: 400, body: validationError(validation[0], validationContext) };
  const known = REQUEST[code];
  if (known) return { status: statusCode, body: { message: `${known.field}: ${message}`, ...known } };
  if (statusCode >= 400 && statusCode < 500) return { status: statusCode, body: { message, code: "ERR_REQUEST" } };
  // What went wrong inside is for the log, not for the client.
  return { status: 500, body: { message: "internal error", code: "ERR_INTERNAL" } };
}

/** Arguments of the engine, as requests name them. */
const FIELDS: readonly [RegExp, string][] = [
  [/^q\.scales/, "query_scales"],
  [/^d\.scales/, "documents_scales"],
  [/^d\.offsets/, "offsets"],
  [/^d\.lengths/, "lengths"],
  [/^(q|query)\b.*/, "query"],
  [/^d\b.*/, "documents"],
];

function engineError(error: MaxSimError): { status: number; body: ErrorBody } {
  const { code, details } = error;
  if (!INPUT.has(code)) {
    const busy = code === "ERR_OUT_OF_MEMORY" || code === "ERR_DISPOSED";
    return { status: busy ? 503 : 500, body: { message: busy ? error.message : "internal error", code } };
  }
  const { argument = "", expected, got, position } = details;
  const [pattern, name] = FIELDS.find(([p]) => p.test(argument)) ?? [/^.*/, argument];
  const field = argument.replace(pattern, name).replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const message = error.message.replace(argument, field);
  return { status: 400, body: { message, code, field, ...defined({ expected, got, position }) } };
}

/** `data` is there because the validator is told to be verbose. */
type Invalid = NonNullable<FastifyError["validation"]>[number] & { data?: unknown };

function validationError(invalid: Invalid, context: string | undefined): ErrorBody {
  const { keyword, params } = invalid;
  let path = invalid.instancePath;
  if (keyword === "required") path += `/${String(params["missingProperty"])}`;
  if (keyword === "additionalProperties") path += `/${String(params["additionalProperty"])}`;
  const field = fieldName(path) || context || "body";
  const expected =
    keyword === "required" ? "a value"
    : keyword === "additionalProperties" ? "no such field"
    : keyword === "type" ? [params["type"]].flat().join(" or ")
    : keyword === "enum" ? `one of ${(params["allowedValues"] as unknown[]).join(", ")}`
    : (invalid.message ?? keyword).replace(/^must (be )?/, "");
  const got = keyword === "required" ? "none" : keyword === "additionalProperties" ? "one" : describe(invalid.data);
  return { message: `${field}: expected ${expected}, got ${got}`, code: keyword === "type" ? "ERR_DTYPE" : "ERR_VALUE", field, expected, got };
}

/** `/documents/3/text` as people write it: `documents[3].text`. */
function fieldName(pointer: string): string {
  return pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .map((part, i) => (/^\d+$/.test(part) ? `[${part}]` : i === 0 ? part : `.${part}`))
    .join("");
}

function defined<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<T>;
}
