// One thread of @maxsim/web's CPU module beside maxsim-web's, in Node and in Chromium, call by call in turns:
//
//     (cd bindings-js && npm ci && npm run build:ts && npm run build:web)
//     git clone https://github.com/joe32140/maxsim-web /tmp/maxsim-web
//     sed -i 's/^wasm-bindgen = .*/wasm-bindgen = "=0.2.130"/' /tmp/maxsim-web/src/rust/Cargo.toml
//     (cd /tmp/maxsim-web/src/rust && RUSTFLAGS=-Ctarget-feature=+simd128 cargo build --release --target wasm32-unknown-unknown)
//     target/tools/release/bind /tmp/maxsim-web/src/rust/target/wasm32-unknown-unknown/release/maxsim_web_wasm.wasm /tmp/peer maxsim_web_wasm
//     node benches/peers/web_peers.mjs /tmp/peer [--out FILE.json]
//
// maxsim-web is not on npm, and the module in its repository does not start ("failed to grow table"), so that it is built from its
// source, with the profile and flags it names (its wasm-opt -O4 makes no difference that could be measured). Both have the documents in
// their memory when time is taken (`corpus`; `load_documents`), and both score unit vectors in f32. Times are medians of the
// thread's processor time, so that other programs count for little. GFLOP/s are 2 · query tokens · document tokens · d per pair.
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { inChromium, inNode } from "../../bindings-js/web/bench/places.mjs";
import { missing } from "../../bindings-js/spec/browser/chromium.mjs";

/** Median times of both for every shape. */
async function work({ root, peer, seconds, clock }) {
  const [{ SHAPES, vectors }, api, theirs] = await Promise.all(
    [`${root}web/bench/measure.js`, `${root}web/dist/index.js`, `${peer}maxsim_web_wasm.js`].map((url) => import(url)),
  );
  await theirs.default({ module_or_path: `${peer}maxsim_web_wasm_bg.wasm` });
  const unit = (data, dim) => {
    for (let at = 0; at < data.length; at += dim) {
      const row = data.subarray(at, at + dim);
      const norm = Math.hypot(...row);
      row.forEach((x, i) => (row[i] = x / norm));
    }
    return data;
  };
  const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
  const engine = await api.createEngine({ backend: "cpu", cpuLevel: "simd128", worker: false, silent: true });
  const rows = [];
  for (const { name, nq, nd, lq, ld, dim } of SHAPES) {
    const query = unit(vectors(nq * lq * dim), dim);
    const documents = unit(vectors(nd * ld * dim), dim);
    const docs = await engine.corpus({ data: documents, shape: [nd, ld, dim], normalize: false });
    const other = new theirs.MaxSimWasm();
    other.load_documents(documents, new Uint32Array(nd).fill(ld), dim);
    const ours = async () => (await engine.maxsim({ data: query, shape: [nq, lq, dim] }, docs)).scores;
    const peers = () => {
      const scores = [];
      for (let i = 0; i < nq; i++) scores.push(...other.search_preloaded(query.subarray(i * lq * dim, (i + 1) * lq * dim), lq));
      return scores;
    };
    const [a, b] = [await ours(), peers()];
    const difference = a.reduce((most, score, i) => Math.max(most, Math.abs(score - b[i]) / Math.abs(score)), 0);
    const times = [[], []];
    for (const end = performance.now() + 1000 * seconds; performance.now() < end || times[0].length < 5; ) {
      for (const [i, score] of [ours, peers].entries()) {
        const start = await clock();
        await score();
        times[i].push((await clock()) - start);
      }
    }
    await docs.dispose();
    other.free();
    const [ms, peerMs] = times.map(median);
    const gflops = (time) => (2 * nq * lq * nd * ld * dim) / time / 1e6;
    rows.push({ shape: name, ms, gflops: gflops(ms), peer_ms: peerMs, peer_gflops: gflops(peerMs), ratio: peerMs / ms, difference });
  }
  return rows;
}

const [folder, ...rest] = process.argv.slice(2);
if (folder === undefined) throw new Error("usage: web_peers.mjs FOLDER [--out FILE.json]");
const record = {
  about: "one thread, f32, beside maxsim-web 0.6.0 (bacd093), call by call in turns: benches/peers/web_peers.mjs",
  machine: { model: cpus()[0].model, node: process.version },
  rows: [],
};
const took = (where, rows) => record.rows.push(...rows.map((row) => ({ where, ...row })));
took("node", await inNode(work, { peer: `${pathToFileURL(resolve(folder)).href}/`, seconds: 3 }));
if (missing === undefined) took("chromium", await inChromium(work, { peer: "/peer/", seconds: 3 }, { peer: resolve(folder) }));
else console.log(missing);
console.log(record.machine);
console.table(record.rows.map((row) => Object.fromEntries(
  Object.entries(row).map(([key, value]) => [key, typeof value === "number" ? +value.toPrecision(3) : value]),
)));
const out = rest[rest.indexOf("--out") + 1];
if (rest.includes("--out")) writeFileSync(out, `${JSON.stringify(record, undefined, 1)}\n`);
