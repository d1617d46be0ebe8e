/** The HTTP application: what happens to every request before and after its route. */
import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import swagger from "@fastify/swagger";
import { Ajv, type Options as AjvOptions } from "ajv";
import fastify, { LogController, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { indexRoutes } from "../routes/indexes.js";
import { operationsRoutes } from "../routes/operations.js";
import { rerankRoutes } from "../routes/rerank.js";
import { scoreRoutes } from "../routes/score.js";
import { teiRoutes } from "../routes/tei.js";
import type { Services } from "../service.js";
import { authorizer } from "./auth.js";
import { receive, tooLarge } from "./body.js";
import { ERROR_SCHEMA, errorResponse, HttpError, type ErrorBody } from "./errors.js";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Routes that compute: they need a key, room, and a body within limits. */
    work?: boolean;
  }
  interface FastifyRequest {
    /** When the last byte of the body came, as `performance.now()` has it. */
    received: number;
    /** Aborts when the client leaves or the request's time is up. (Fastify's own `signal` aborts once the body is read.) */
    stop: AbortSignal;
    /** Milliseconds that parts of the work took. */
    stages: Readonly<Record<string, number>>;
  }
}

/** Route configuration of everything that computes. */
export const WORK = { work: true } as const;

/** Content types of binary bodies. */
export const BINARY_TYPES: readonly string[] = ["application/octet-stream", "application/x-safetensors"];

const described = (description: string) => ({ description, ...ERROR_SCHEMA });

/** Responses that every computing route can give. */
export const ERROR_RESPONSES = {
  400: described("A field is not what it should be; the body names it"),
  401: described("No API key, or a wrong one"),
  408: described("The body took too long to come"),
  413: described("The body is too large"),
  415: described("Another content type than those described"),
  429: described("No room; try again after the seconds that `Retry-After` says"),
  500: described("A defect"),
  503: described("Took too long, or out of memory"),
} as const;

/** How long a refused request may go on sending before its connection is cut. */
const LINGER = 2000;

/** The application over `services`; not listening yet. */
export async function createApp(services: Services): Promise<FastifyInstance> {
  const { config } = services;
  const receiving = new WeakSet<Socket>();
  const app = fastify({
    logger: { level: config.logLevel },
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: config.jsonLimit,
    requestTimeout: config.bodyTimeout,
    keepAliveTimeout: config.keepAliveTimeout,
    http: {
      headersTimeout: config.headersTimeout,
      // How often Node looks for requests that are too slow: an eighth of the time that they have.
      connectionsCheckingInterval: Math.max(50, Math.min(config.headersTimeout, config.bodyTimeout) / 8),
    },
    // Requests that race with a shutdown are served; `Connection: close` tells clients not to send more.
    return503OnClosing: false,
    genReqId: ({ headers }) => requestId(headers["x-request-id"]),
    clientErrorHandler: (error, socket) => answerClientError(error, socket, receiving.has(socket)),
  });
  app.decorateRequest("received", 0);
  app.decorateRequest("stages");
  app.decorateRequest("stop");
  // Fastify reads plain text by default; no route takes any.
  app.removeContentTypeParser("text/plain");
  app.setValidatorCompiler(validator());
  app.setErrorHandler((error, request, reply) => answerError(error, request, reply));
  app.setNotFoundHandler(() => {
    throw new HttpError(404, "ERR_NOT_FOUND", "no such path or method", { field: "path" });
  });
  admit(app, services, receiving);
  report(app, services);
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "maxsim-server", version: services.version, description: "Reranking and late-interaction scoring" },
      components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
      security: config.apiKeys.length > 0 ? [{ key: [] }] : [],
    },
  });
  await app.register(async (routes) => {
    rerankRoutes(routes, services);
    teiRoutes(routes, services);
    operationsRoutes(routes, services);
    await routes.register(async (binary) => {
      binary.addContentTypeParser([...BINARY_TYPES], async (_: FastifyRequest, payload: IncomingMessage) =>
        receive(payload, config.bodyLimit),
      );
      scoreRoutes(binary, services);
      indexRoutes(binary, services);
    });
  });
  await app.ready();
  return app;
}

/** The caller's id if it is a plain one, so that logs of several services can be put together. */
function requestId(given: string | string[] | undefined): string {
  return typeof given === "string" && /^[\w.:-]{1,128}$/.test(given) ? given : randomUUID();
}

/** Key, size and room, in this order, all decided from the header: what is refused costs neither memory nor parsing. */
function admit(app: FastifyInstance, { config, admission, metrics }: Services, receiving: WeakSet<Socket>): void {
  const authorized = authorizer(config.apiKeys);
  app.addHook("onRequest", async (request, reply) => {
    if (!request.routeOptions.config.work) return;
    const { headers, raw } = request;
    // Answers by the thousand: no exceptions here, whose stacks would cost more than everything else.
    const refuse = (reason: "key" | "size" | "full", status: number, body: ErrorBody): FastifyReply => {
      metrics.refused(reason);
      linger(request);
      return sendError(request, reply, status, body);
    };
    if (!authorized(headers)) {
      reply.header("www-authenticate", "Bearer");
      const [field, expected] = ["headers.authorization", "Bearer and a valid API key"];
      return refuse("key", 401, { message: `${field}: expected ${expected}`, code: "ERR_UNAUTHORIZED", field, expected });
    }
    const limit = BINARY_TYPES.includes(request.mediaType ?? "") ? config.bodyLimit : config.jsonLimit;
    const declared = headers["content-length"] === undefined ? undefined : Number(headers["content-length"]);
    if (declared !== undefined && declared > limit) {
      const { statusCode, message, code, details } = tooLarge(limit, declared);
      return refuse("size", statusCode, { message, code, ...details });
    }
    const leave = admission.enter(declared ?? limit);
    if (!leave) {
      const seconds = admission.retryAfter;
      reply.header("retry-after", seconds);
      return refuse("full", 429, { message: `no room for another request; try again in ${seconds} s`, code: "ERR_OVERLOADED" });
    }
    const controller = new AbortController();
    const late = setTimeout(() => {
      controller.abort(new HttpError(503, "ERR_TIMEOUT", `the request took longer than ${config.requestTimeout} ms`));
    }, config.requestTimeout);
    request.stop = controller.signal;
    reply.raw.once("close", () => {
      leave();
      clearTimeout(late);
      if (reply.raw.writableFinished) return;
      metrics.left();
      controller.abort(new HttpError(499, "ERR_CLIENT_LEFT", "the client left"));
    });
    receiving.add(raw.socket);
    raw.once("end", () => {
      receiving.delete(raw.socket);
      request.received = performance.now();
    });
    // Node would ask for the body by itself, before anybody looked at the header, without the listener below.
    if (/^100-continue$/i.test(headers.expect ?? "")) reply.raw.writeContinue();
  });
  app.server.on("checkContinue", (message, response) => app.server.emit("request", message, response));
}

/**
 * Node reads what is left of a refused body into nothing, and keeps the connection. Cutting it at once would take the
 * answer from clients that are still sending; letting it go on for ever would be an invitation.
 */
function linger(request: FastifyRequest): void {
  const { raw } = request;
  const cut = setTimeout(() => raw.socket.destroy(), LINGER).unref();
  const done = (): void => clearTimeout(cut);
  raw.once("end", done).once("close", done);
}

/** Metrics, one line of log per response, and timings for the client. */
function report(app: FastifyInstance, { metrics, readiness }: Services): void {
  app.addHook("onSend", async (request, reply) => {
    reply.header("x-request-id", request.id);
    if (readiness() === "stopping") reply.header("connection", "close");
    if (request.received === 0) return;
    const parts = { ...request.stages, total: performance.now() - request.received };
    reply.header("server-timing", Object.entries(parts).map(([name, ms]) => `${name};dur=${ms.toFixed(2)}`).join(", "));
  });
  app.addHook("onResponse", async (request, reply) => {
    const status = reply.raw.writableFinished ? reply.statusCode : 499;
    const route = request.routeOptions.url ?? "none";
    metrics.answered(route, request.method, status, reply.elapsedTime / 1000);
    // Refusals come in thousands when they come, and probes all the time; the metrics count them.
    const level = status === 429 || !request.routeOptions.config.work ? "debug" : status >= 500 ? "error" : "info";
    request.log[level]({ method: request.method, route, status, ms: Math.round(reply.elapsedTime * 100) / 100 }, "answered");
  });
}

/** Error types of text-embeddings-inference. */
const TEI_TYPES: Readonly<Record<number, string>> = { 400: "Validation", 413: "Validation", 429: "Overloaded", 503: "Unhealthy" };

function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { status, body } = errorResponse(error);
  if (status >= 500) request.log.error({ err: error }, "failed");
  return sendError(request, reply, status, body);
}

function sendError(request: FastifyRequest, reply: FastifyReply, status: number, body: ErrorBody): FastifyReply {
  const tei = request.routeOptions.url === "/rerank" && { error: body.message, error_type: TEI_TYPES[status] ?? "Backend" };
  return reply.code(status).send({ ...body, ...tei });
}

/** Requests that are too slow, or no HTTP, never reach a route; they get an answer of the same form. */
function answerClientError(error: Error & { code?: string }, socket: Socket, body: boolean): void {
  if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
  const where = body ? "body" : "headers";
  const [status, answer]: [string, ErrorBody] =
    error.code === "ERR_HTTP_REQUEST_TIMEOUT"
      ? ["408 Request Timeout", { message: `${where}: took too long to come`, code: "ERR_TIMEOUT", field: where }]
      : error.code === "HPE_HEADER_OVERFLOW"
        ? ["431 Request Header Fields Too Large", { message: "headers: too large", code: "ERR_LIMIT", field: "headers" }]
        : ["400 Bad Request", { message: `${where}: not HTTP/1.1`, code: "ERR_FORMAT", field: where }];
  const text = JSON.stringify(answer);
  const headers = `Content-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close`;
  socket.end(`HTTP/1.1 ${status}\r\n${headers}\r\n\r\n${text}`, () => socket.destroy());
}

/** Bodies are taken as they are; query strings are texts, which have to be turned into numbers. Defaults are left to routes. */
function validator(): Parameters<FastifyInstance["setValidatorCompiler"]>[0] {
  const options: AjvOptions = { allErrors: false, verbose: true, strict: true, allowUnionTypes: true, strictTypes: false, strictRequired: false };
  const [body, query] = [new Ajv(options), new Ajv({ ...options, coerceTypes: true })];
  return ({ schema, httpPart }) => {
    if ((schema as { format?: string }).format === "binary") return () => true;
    return (httpPart === "body" ? body : query).compile(schema as object);
  };
}
