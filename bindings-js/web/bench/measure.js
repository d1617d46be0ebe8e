// How fast one thread scores, in GFLOP/s: 2 · query tokens · document tokens · d floating-point operations per pair.

export const SHAPES = [
  { name: "1×1000 32×300", nq: 1, nd: 1000, lq: 32, ld: 300, dim: 128 },
  { name: "1×1000 32×1024", nq: 1, nd: 1000, lq: 32, ld: 1024, dim: 128 },
  { name: "1×100 32×180 d=96", nq: 1, nd: 100, lq: 32, ld: 180, dim: 96 },
  { name: "32×32 32×300", nq: 32, nd: 32, lq: 32, ld: 300, dim: 128 },
];

export function vectors(elements) {
  const data = new Float32Array(elements);
  let x = 2654435761;
  for (let i = 0; i < elements; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    data[i] = (x >>> 0) / 2 ** 31 - 1;
  }
  return data;
}

/** Median rates of an engine of `api` per shape and storage type; `clock` in ms, perhaps promised. */
export async function measure(api, engine, { seconds = 0.3, storages = ["f32", "f16", "int8"], clock = () => performance.now() } = {}) {
  const rows = [];
  for (const { name, nq, nd, lq, ld, dim } of SHAPES) {
    const query = { data: vectors(nq * lq * dim), shape: [nq, lq, dim] };
    const documents = { data: vectors(nd * ld * dim), shape: [nd, ld, dim] };
    for (const storage of storages) {
      const docs = await engine.corpus({ ...documents, storage });
      // int8 documents meet int8 queries in integer arithmetic.
      const q = storage === "int8" ? await api.quantizeInt8(query) : query;
      const score = () => engine.maxsim(q, docs);
      await score();
      const times = [];
      for (const end = performance.now() + 1000 * seconds; performance.now() < end || times.length < 3; ) {
        const start = await clock();
        await score();
        times.push((await clock()) - start);
      }
      await docs.dispose();
      const ms = times.sort((a, b) => a - b)[times.length >> 1];
      rows.push({ shape: name, storage, ms, gflops: (2 * nq * lq * nd * ld * dim) / ms / 1e6 });
    }
  }
  return rows;
}
