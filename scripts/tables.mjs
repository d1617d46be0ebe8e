// The tables of measured figures in README.md, made from the records in benches/record:
//
//     node scripts/tables.mjs            # writes them between <!-- table NAME --> and <!-- end -->
//     node scripts/tables.mjs --check    # fails if what stands there is something else
import { readFileSync, writeFileSync } from "node:fs";

const root = new URL("../", import.meta.url);
const text = (path) => readFileSync(new URL(path, root), "utf8");
const record = (path) => JSON.parse(text(`benches/record/${path}`));
const table = (head, rows) =>
  [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`.replaceAll("|  |", "| |")).join("\n");

/** The version that the benchmark installs. */
const python = (name) => text("benches/peers/requirements.txt").match(new RegExp(`^${name}==(\\S+)`, "m"))[1];
const crate = (name) => text("benches/peers/next-plaid/Cargo.toml").match(new RegExp(`^${name} = .*?"=?([\\d.]+)"`, "m"))[1];

/** GFLOP/s of one thread and their ratio to the same run's sgemm: a row per program, a column per shape. */
function cpu(file, level) {
  const rows = record(file).rows.filter(({ threads }) => threads === 1);
  const cell = ({ gflops, sgemm_gflops: sgemm }, program) => {
    const rate = gflops[program];
    return typeof rate === "number" ? `${rate.toFixed(0)}, ${(rate / sgemm).toFixed(2)}` : `${rate}`;
  };
  const programs = [
    ["numpy", "numpy (sgemm + max)"],
    ["fast-maxsim", `fast-maxsim ${python("fast-maxsim")}`],
    ["maxsim-cpu", `maxsim-cpu ${python("maxsim-cpu")}`],
    [`maxsim ${level} f32`, "**maxsim** f32"],
    [`maxsim ${level} f16`, "**maxsim** f16 documents"],
    [`maxsim ${level} int8`, "**maxsim** int8"],
  ];
  return table(
    ["", ...rows.map(({ shape }) => shape.replaceAll("x", "×"))],
    programs.map(([program, name]) => [name, ...rows.map((row) => cell(row, program))]),
  );
}

/** Processor time of all threads, which other programs on the machine hardly change; recall of the best 10 of all vectors. */
function plaid() {
  const found = record("cpu-spr/plaid-next-plaid.json");
  const row = (bits, key, name) => {
    const { build_processor_s: build, one_processor_ms: one, batch_processor_ms: batch, recall } = found[`${bits}_bit`][key];
    return [`${name}, ${bits} bit`, build.toFixed(1), one.toFixed(1), batch.toFixed(1), recall.toFixed(2)];
  };
  const programs = [["next_plaid", `next-plaid ${crate("next-plaid")}`], ["maxsim", "**maxsim**"]];
  return table(
    ["", "build, s", "one query, ms", `query of ${found.queries}, ms`, "recall@10"],
    [2, 4].flatMap((bits) => programs.map(([key, name]) => row(bits, key, name))),
  );
}

/** GFLOP/s of one thread, f32: a row per place and program, a column per shape. */
function web() {
  const { rows } = record("web/peers.json");
  const names = { node: "Node", chromium: "Chromium" };
  const lines = Object.entries(names).flatMap(([where, name]) => {
    const here = rows.filter((row) => row.where === where);
    return [
      [`maxsim-web 0.6.0, ${name}`, ...here.map((row) => row.peer_gflops.toFixed(1))],
      [`**maxsim**, ${name}`, ...here.map((row) => `${row.gflops.toFixed(1)}, ${row.ratio.toFixed(1)}×`)],
    ];
  });
  return table(["", ...rows.filter(({ where }) => where === "node").map(({ shape }) => shape)], lines);
}

/** Microseconds on the GPU: the larger of bytes and operations over the device's rates, the peers of the same run, ours. */
function cuda() {
  const time = (us) => (us === undefined ? "–" : us < 100 ? us.toFixed(1) : us.toFixed(0));
  const rows = record("h200/cuda.json").cases.map(({ name, floor_us: floor, gpu_us: ours, peers, peers_call: apart }) => {
    const peer = (names) => {
      const times = names.map((key) => peers[key]?.gpu_us).filter((us) => us !== undefined);
      return times.length > 0 ? Math.min(...times) : undefined;
    };
    const [lik, flash] = [peer(["lik", "lik-unified", "lik-lowmem"]), peer(["flash"])];
    const best = Math.min(lik ?? Infinity, flash ?? Infinity);
    const ratio = best === Infinity ? "–" : `${(best / ours).toFixed(2)}${apart ? " \\*" : ""}`;
    return [name.replace(/(\d)x(\d)/g, "$1×$2"), time(floor), time(lik), time(flash), time(ours), ratio];
  });
  return table(["Nq×Nd Lq×Ld", "floor", "late-interaction-kernels", "flash-maxsim", "**maxsim**", "best peer / ours"], rows);
}

const TABLES = {
  "cpu-avx512": () => cpu("cpu-spr/peers-avx512.json", "avx512-vnni"),
  "cpu-avx2": () => cpu("cpu-spr/peers-avx2.json", "avx2"),
  "web": web,
  "plaid": plaid,
  "cuda-h200": cuda,
};

const readme = text("README.md");
const found = [];
const made = readme.replace(/(<!-- table (\S+) -->\n).*?(?=<!-- end -->)/gs, (_, start, name) => {
  found.push(name);
  if (!(name in TABLES)) throw new Error(`README.md: no table is called ${name}`);
  return `${start}\n${TABLES[name]()}\n\n`;
});
const missing = Object.keys(TABLES).filter((name) => !found.includes(name));
if (missing.length > 0) throw new Error(`README.md has no place for ${missing}`);
if (made === readme) console.log(`README.md: ${found.length} tables as measured`);
else if (process.argv.includes("--check")) {
  console.error("README.md does not say what benches/record says: run `node scripts/tables.mjs`");
  process.exit(1);
} else writeFileSync(new URL("README.md", root), made);
