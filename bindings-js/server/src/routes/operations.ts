/** What operators look at: health, readiness, metrics, the OpenAPI description. */
import type { FastifyInstance } from "fastify";
import type { Services } from "../service.js";

const STATUS = { type: "object", properties: { status: { type: "string" } } } as const;

/** The routes. */
export function operationsRoutes(app: FastifyInstance, { metrics, readiness }: Services): void {
  app.get(
    "/health",
    { schema: { summary: "The process answers", tags: ["operations"], response: { 200: STATUS } } },
    async () => ({ status: "ok" }),
  );
  app.get(
    "/ready",
    { schema: { summary: "Send requests here, or do not (503)", tags: ["operations"], response: { 200: STATUS, 503: STATUS } } },
    async (_, reply) => {
      const status = readiness();
      return reply.code(status === "ready" ? 200 : 503).send({ status });
    },
  );
  app.get("/metrics", { schema: { summary: "Prometheus metrics", tags: ["operations"] } }, async (_, reply) =>
    reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()),
  );
  app.get("/openapi.json", { schema: { hide: true } }, async () => app.swagger());
}
