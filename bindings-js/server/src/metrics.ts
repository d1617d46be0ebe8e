/** What Prometheus reads. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Admission } from "./http/admission.js";

/** What has a queue: texts to encode and score, vectors to score, searches. */
export type StageName = "texts" | "score" | "search";

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** The metrics of one service. */
export class Metrics {
  readonly registry = new Registry();
  readonly #registers = [this.registry];
  readonly #requests = new Counter({
    name: "maxsim_http_requests_total", help: "Responses by route, method and status",
    labelNames: ["route", "method", "status"], registers: this.#registers,
  });
  readonly #duration = new Histogram({
    name: "maxsim_http_request_seconds", help: "From the header of a request to the end of its response",
    labelNames: ["route"], buckets: SECONDS, registers: this.#registers,
  });
  readonly #refused = new Counter({
    name: "maxsim_refused_total", help: "Requests refused before their body was read",
    labelNames: ["reason"], registers: this.#registers,
  });
  readonly #left = new Counter({
    name: "maxsim_clients_left_total", help: "Clients that left before their response", registers: this.#registers,
  });
  readonly #documents = new Counter({
    name: "maxsim_documents_total", help: "Documents scored", registers: this.#registers,
  });
  readonly #batchJobs = new Histogram({
    name: "maxsim_batch_requests", help: "Requests per batch",
    labelNames: ["stage"], buckets: [1, 2, 4, 8, 16, 32, 64], registers: this.#registers,
  });
  readonly #wait = new Histogram({
    name: "maxsim_queue_seconds", help: "Time the first request of a batch waited",
    labelNames: ["stage"], buckets: SECONDS, registers: this.#registers,
  });
  readonly #run = new Histogram({
    name: "maxsim_stage_seconds", help: "Time a batch ran",
    labelNames: ["stage"], buckets: SECONDS, registers: this.#registers,
  });
  readonly #queues = new Map<StageName, () => number>();

  constructor(admission: Admission) {
    collectDefaultMetrics({ register: this.registry });
    const gauge = (name: string, help: string, value: () => number): void => {
      new Gauge({ name, help, registers: this.#registers, collect() { this.set(value()); } });
    };
    gauge("maxsim_requests_inside", "Requests admitted and not yet answered", () => admission.requests);
    gauge("maxsim_bytes_inside", "Bytes of the bodies of these requests", () => admission.bytes);
    const queues = this.#queues;
    new Gauge({
      name: "maxsim_queue_length", help: "Requests that wait", labelNames: ["stage"], registers: this.#registers,
      collect() { for (const [stage, length] of queues) this.set({ stage }, length()); },
    });
  }

  /** Reports the length of a queue. */
  queue(stage: StageName, length: () => number): void {
    this.#queues.set(stage, length);
  }

  /** Observer of a stage's batches. */
  batch(stage: StageName): (jobs: number, waited: number, ran: number) => void {
    return (jobs, waited, ran) => {
      this.#batchJobs.observe({ stage }, jobs);
      this.#wait.observe({ stage }, waited);
      this.#run.observe({ stage }, ran);
    };
  }

  /** A response was sent. */
  answered(route: string, method: string, status: number, seconds: number): void {
    this.#requests.inc({ route, method, status });
    this.#duration.observe({ route }, seconds);
  }

  refused(reason: "full" | "key" | "size"): void {
    this.#refused.inc({ reason });
  }

  left(): void {
    this.#left.inc();
  }

  documents(count: number): void {
    this.#documents.inc(count);
  }
}
