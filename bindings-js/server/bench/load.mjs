// Load test of the service on this machine, which also has to run the client.
//
//   node bench/load.mjs [rerank-vectors|overload|stop …] [--seconds N] [--out FILE.json]
//
// The service is configured as always, by MAXSIM_… in the environment.
//
// rerank-vectors  100 documents × 180 tokens × 128 f16 against 32 query tokens, 15 requests a second
// overload        ten times what the service can do, then how fast it recovers
// stop            SIGTERM under load
import { writeFileSync } from "node:fs";
import http from "node:http";
import os from "node:os";
import { parseArgs } from "node:util";
import { closedLoop, launch, openLoop, percentile, rerankBody, scoreBody, send, serverTiming, tally } from "../testing/client.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: "string", default: "60" }, out: { type: "string" } },
});
const seconds = Number(values.seconds);
const round = (x) => Math.round(x * 100) / 100;
const summary = (xs) => ({ p50: round(percentile(xs, 50)), p90: round(percentile(xs, 90)), p99: round(percentile(xs, 99)), max: round(Math.max(...xs)) });
const outcome = (response) => response.error ?? response.status;

const scenarios = {
  async "rerank-vectors"() {
    const service = await start();
    const bodies = Array.from({ length: 8 }, (_, i) => scoreBody({ n: 100, seed: i + 1 }));
    const agent = new http.Agent({ keepAlive: true });
    const one = (i) => send(service.url, "/v1/score", bodies[i % 8], { agent, type: "application/octet-stream" });
    await openLoop(15, 3, one);
    const before = service.cpu();
    const responses = await openLoop(15, seconds, one);
    const [cpu, rss] = [service.cpu() - before, service.rss()];
    await service.stop();
    const answered = responses.filter((r) => r.status === 200);
    return {
      requests_per_second: 15, body_bytes: bodies[0].length, outcomes: tally(responses.map(outcome)),
      server_ms_after_last_byte: summary(answered.map((r) => serverTiming(r, "total"))),
      engine_ms: summary(answered.map((r) => serverTiming(r, "score"))),
      client_ms_after_upload: summary(answered.map((r) => r.afterUpload)),
      server_cpu_ms_per_request: round(cpu / answered.length),
      rss_mib: round(rss),
    };
  },

  async overload() {
    const service = await start();
    const bodies = Array.from({ length: 8 }, (_, i) => rerankBody({ n: 100, chars: 600, seed: i + 1 }));
    const agent = new http.Agent({ keepAlive: true, maxSockets: 256 });
    const one = (i) => send(service.url, "/v2/rerank", bodies[i % 8], { agent });
    await closedLoop(4, 2, one);
    const cpuBefore = service.cpu();
    const calm = await closedLoop(4, 5, one);
    const served = calm.filter((r) => r.status === 200).length;
    const [capacity, cpu] = [served / 5, service.cpu() - cpuBefore];
    const before = service.rss();
    let peak = before;
    const watch = setInterval(() => (peak = Math.max(peak, service.rss())), 100);
    const started = performance.now();
    const responses = await openLoop(10 * capacity, seconds, one);
    const took = (performance.now() - started) / 1000;
    clearInterval(watch);
    const recovered = await recovery(service, bodies[0], percentile(calm.map((r) => r.ms), 50));
    const after = service.rss();
    await service.stop();
    const ok = responses.filter((r) => r.status === 200);
    const refused = responses.filter((r) => r.status === 429);
    return {
      body_bytes: bodies[0].length, capacity_per_second: round(capacity), server_cpu_ms_per_request: round(cpu / served), offered_per_second: round(10 * capacity),
      sent: responses.length, seconds_until_all_answered: round(took), outcomes: tally(responses.map(outcome)),
      served_per_second: round(ok.length / took), retry_after: tally(refused.map((r) => r.headers["retry-after"])),
      served_server_ms: summary(ok.map((r) => serverTiming(r, "total"))),
      refused_client_ms: summary(refused.map((r) => r.ms)),
      rss_mib: { before: round(before), peak: round(peak), growth: round(peak - before), after: round(after) },
      recovered_ms: round(recovered),
    };
  },

  async stop() {
    const service = await start();
    const body = rerankBody({ n: 100, chars: 600 });
    const agent = new http.Agent({ keepAlive: true, maxSockets: 256 });
    const load = openLoop(100, 4, () => send(service.url, "/v2/rerank", body, { agent }));
    await new Promise((resolve) => setTimeout(resolve, 2000));
    service.kill("SIGTERM");
    const code = await service.exit;
    const responses = await load;
    const admitted = service.log.find((entry) => entry.msg === "stopped").admitted;
    return { exit_code: code, admitted, outcomes: tally(responses.map(outcome)), lost: admitted - responses.filter((r) => r.status === 200).length };
  },
};

/** Time until the service answers as it did before: within twice its usual time, three times in a row. */
async function recovery(service, body, usual) {
  const started = performance.now();
  for (let good = 0; good < 3; ) {
    const response = await send(service.url, "/v2/rerank", body);
    good = response.status === 200 && response.ms <= 2 * usual ? good + 1 : 0;
    if (performance.now() - started > 30_000) return Infinity;
  }
  return performance.now() - started;
}

function start() {
  return launch().catch((error) => {
    throw new Error(`is it built (npm run build)? ${error.message}`);
  });
}

const record = {
  when: new Date().toISOString(),
  machine: { cpu: os.cpus()[0].model, cores: os.cpus().length, node: process.version },
  load_average_before: os.loadavg().map(round),
  seconds,
  settings: Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith("MAXSIM_"))),
  scenarios: {},
};
for (const name of positionals.length > 0 ? positionals : Object.keys(scenarios)) {
  if (!Object.hasOwn(scenarios, name)) throw new Error(`no scenario ${name}; there are ${Object.keys(scenarios).join(", ")}`);
  record.scenarios[name] = await scenarios[name]();
  console.log(name, JSON.stringify(record.scenarios[name], null, 1));
}
record.load_average_after = os.loadavg().map(round);
if (values.out) writeFileSync(values.out, `${JSON.stringify(record, null, 1)}\n`);
