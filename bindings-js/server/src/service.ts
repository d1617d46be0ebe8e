/** The service: its parts, put together, and its life from listening to the last response. */
import { createRequire } from "node:module";
import { createEngine } from "@maxsim/node";
import type { FastifyInstance } from "fastify";
import type { Config } from "./config.js";
import type { Encoder } from "./encoders/encoder.js";
import { onnxEncoder } from "./encoders/onnx.js";
import { staticEncoder } from "./encoders/static.js";
import { Reranking } from "./engine/reranking.js";
import { Scoring } from "./engine/scoring.js";
import { openIndexes, Searching } from "./engine/searching.js";
import { Admission } from "./http/admission.js";
import { createApp } from "./http/app.js";
import { Metrics } from "./metrics.js";

/** What routes work with. */
export interface Services {
  readonly config: Config;
  readonly version: string;
  readonly admission: Admission;
  readonly metrics: Metrics;
  readonly scoring: Scoring;
  readonly reranking: Reranking;
  readonly searching: Searching;
  /** Whether requests should be sent here. */
  readiness(): "ready" | "stopping" | "broken";
}

/** A running service. */
export interface Service {
  /** Where it listens, `http://host:port`. */
  readonly url: string;
  readonly app: FastifyInstance;
  /** Makes searches see what was written to the indexes since they were opened or refreshed. */
  refresh(): Promise<void>;
  /**
   * Finishes what was accepted and stops: says that it is stopping, then listens no longer, then waits for the requests
   * inside. False if some had to be given up after `shutdownTimeout`.
   */
  close(): Promise<boolean>;
}

/** Version of this package. */
export const VERSION: string = createRequire(import.meta.url)("../package.json").version;

/**
 * Loads the model, sets the engine up and listens.
 *
 * @throws {MaxSimError} `ERR_UNSUPPORTED`, `ERR_IO` or `ERR_FORMAT` if the engine or the model cannot be had here; Node's
 * error if the address cannot be listened on.
 */
export async function startService(config: Config): Promise<Service> {
  const engine = await createEngine({ threads: config.threads, silent: true });
  let encoder: Encoder | undefined;
  let searching: Searching | undefined;
  let app: FastifyInstance | undefined;
  let stopping = false;
  const release = async (): Promise<void> => {
    await app?.close();
    await encoder?.close();
    await searching?.close();
    await engine.dispose();
  };
  try {
    encoder = config.encoder === "onnx" ? await onnxEncoder(config.model!, config.threads) : await staticEncoder(config.concurrency);
    const model = encoder;
    const admission = new Admission(config);
    const metrics = new Metrics(admission);
    const scoring = new Scoring(engine, config.concurrency, metrics);
    const search = (searching = new Searching(await openIndexes(engine, model, config), config.concurrency, metrics));
    const services: Services = {
      config,
      version: VERSION,
      admission,
      metrics,
      scoring,
      reranking: new Reranking(model, engine, metrics),
      searching: search,
      readiness: () => (stopping ? "stopping" : model.failure ? "broken" : "ready"),
    };
    const running = (app = await createApp(services));
    const url = await running.listen({ host: config.host, port: config.port });
    running.log.info({ url, encoder: model.name, backend: engine.info.backend, level: engine.info.level, threads: engine.info.threads }, "listening");

    const stop = async (): Promise<boolean> => {
      stopping = true;
      running.log.info({ inside: admission.requests }, "stopping");
      // Load balancers and clients with open connections get to know before anything is refused.
      await new Promise((resolve) => setTimeout(resolve, config.drainDelay));
      let finished = true;
      const giveUp = setTimeout(() => {
        finished = admission.requests === 0;
        running.server.closeAllConnections();
      }, config.shutdownTimeout);
      await release();
      clearTimeout(giveUp);
      running.log.info({ admitted: admission.admitted, finished }, "stopped");
      return finished;
    };
    let stopped: Promise<boolean> | undefined;
    return { url, app: running, refresh: () => search.refresh(), close: () => (stopped ??= stop()) };
  } catch (error) {
    await release();
    throw error;
  }
}
