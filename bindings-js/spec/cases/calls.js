// Calls that overlap, and calls that are stopped.
import { equal, ok, rejection, rejects, vectors } from "./support.js";

const DIM = 16;
const D = { data: vectors(41, 50 * 4 * DIM), shape: [50, 4, DIM] };
const query = (seed) => ({ data: vectors(seed, 3 * DIM), dim: DIM });

/** A corpus, a query for it, and how long a search takes: long enough that stopping it early shows. */
async function slow({ engine, now }) {
  const [dim, len] = [128, 64];
  const query = { data: vectors(43, 16 * 64 * dim), shape: [16, 64, dim] };
  for (let count = 50; ; count *= 4) {
    const docs = await engine.corpus({ data: vectors(42, count * len * dim), shape: [count, len, dim], normalize: false });
    const start = now();
    await docs.search(query, { topK: 5 });
    const whole = now() - start;
    if (whole > 250) return { docs, query, whole };
    await docs.dispose();
  }
}

export const calls = [
  {
    name: "calls overlap without mixing up their results",
    async run({ engine }) {
      const seeds = Array.from({ length: 64 }, (_, i) => 100 + i);
      const docs = await engine.corpus({ ...D, normalize: false });
      const alone = [];
      for (const seed of seeds) alone.push((await engine.maxsim(query(seed), D)).scores);
      const together = await Promise.all(
        seeds.map((seed, i) => (i % 2 ? docs.score(query(seed)) : engine.maxsim(query(seed), D))),
      );
      equal(together.map(({ scores }) => scores), alone, "scores");
    },
  },
  {
    name: "a call that was aborted before it began rejects with the reason",
    async run({ engine }) {
      const reason = new Error("changed my mind");
      const signal = AbortSignal.abort(reason);
      const docs = await engine.corpus(D);
      for (const start of [
        () => engine.maxsim(query(1), D, { signal }),
        () => engine.maxsimPairs(query(1), D, { signal }),
        () => engine.scorePairs(query(1), D, [0], [0], { signal }),
        () => engine.retrieve(query(1), D, { topK: 1, signal }),
        () => engine.packPadded(query(1), { ...D, shape: [1, ...D.shape] }, { signal }),
        () => engine.corpus({ ...D, signal }),
        () => docs.search(query(1), { topK: 1, signal }),
        () => docs.score(query(1), { signal }),
        () => engine.scorer().forward(query(1), D, { signal }),
        () => engine.scorer().retrieve(query(1), D, { topK: 1, signal }),
      ]) {
        ok((await rejection(start())) === reason, "the reason");
      }
      equal((await rejection(engine.maxsim(query(1), D, { signal: AbortSignal.abort() }))).name, "AbortError", "name");
    },
  },
  {
    name: "a call under way stops soon after its signal",
    async run(context) {
      const { now, sleep } = context;
      const { docs, query, whole } = await slow(context);
      // Whether a thread gets its turn in time is for the machine to say; a call that does not stop is late every time.
      for (let attempt = 1; ; attempt++) {
        const controller = new AbortController();
        const start = now();
        const outcome = rejection(docs.search(query, { topK: 5, signal: controller.signal }));
        await sleep(5);
        controller.abort("enough");
        equal(await outcome, "enough", "reason");
        const stopped = now() - start;
        // Nor does it keep others waiting.
        await docs.score({ data: query.data.subarray(0, 128), dim: 128 });
        const next = now() - start;
        if (stopped < Math.max(whole / 2, 60) && next < Math.max(0.75 * whole, 120)) break;
        ok(attempt < 5, `stopped after ${stopped} ms, and the next call was done after ${next} ms; the stopped one takes ${whole} ms`);
      }
      await docs.dispose();
    },
  },
  {
    name: "a signal that never fires changes nothing and is let go",
    async run({ engine }) {
      let listeners = 0;
      const signal = {
        aborted: false,
        reason: undefined,
        addEventListener: () => void listeners++,
        removeEventListener: () => void listeners--,
      };
      equal((await engine.maxsim(query(1), D, { signal })).scores, (await engine.maxsim(query(1), D)).scores);
      await rejection(engine.maxsim(query(1), { ...D, shape: [1, 1, DIM] }, { signal }));
      equal(listeners, 0, "listeners left");
    },
  },
  {
    name: "an aborted upload leaves no corpus",
    async run({ engine }) {
      const controller = new AbortController();
      const upload = engine.corpus({ data: vectors(44, 2000 * 16 * 32), shape: [2000, 16, 32], signal: controller.signal });
      controller.abort();
      equal((await rejection(upload)).name, "AbortError", "name");
    },
  },
  {
    name: "tuning tables are CUDA's alone",
    async run({ api, engine, create }) {
      if (engine.info.backend === "cuda") {
        const table = await engine.exportTuning();
        const again = await create({ tuning: table });
        equal(await again.exportTuning(), table, "table");
        await again.dispose();
        for (const [tuning, code] of [["fast, please", "ERR_FORMAT"], ["{}", "ERR_FORMAT"], ['{"version":99}', "ERR_VERSION"]]) {
          await rejects(api, create({ tuning }), code);
        }
      } else {
        await rejects(api, engine.exportTuning(), "ERR_UNSUPPORTED");
        await rejects(api, create({ tuning: '{"version":1,"device":"","entries":[]}' }), "ERR_UNSUPPORTED");
      }
      await rejects(api, create({ tuning: 1 }), "ERR_VALUE", "tuning");
      const gone = await create();
      await gone.dispose();
      await rejects(api, gone.exportTuning(), "ERR_DISPOSED");
    },
  },
  {
    name: "explain names the kernels that run",
    async run({ engine }) {
      const q = { data: vectors(45, 4 * 8), shape: [4, 8] };
      const { kernel, choices, text, backend } = await engine.explain({ op: "maxsim", q, d: q });
      equal(backend, engine.info.backend, "backend");
      ok(kernel.startsWith("forward") && text.includes(kernel), `${kernel} in ${text}`);
      if (backend === "wgpu") ok(choices.kernels.split(" ").includes(choices.kernel), `${choices.kernel} of ${choices.kernels}`);
      else if (backend === "cpu") equal(kernel, `forward/${engine.info.level}`, "kernel");
    },
  },
  {
    name: "rejections never escape as exceptions",
    async run({ api, engine }) {
      for (const start of [
        () => engine.maxsim(),
        () => engine.scorePairs(),
        () => engine.retrieve(),
        () => engine.corpus(),
        () => engine.packPadded(),
        () => engine.explain(),
        () => engine.scorer().forward(),
      ]) {
        let promise;
        try {
          promise = start();
        } catch (error) {
          throw new Error(`thrown, not rejected: ${error}`);
        }
        ok((await rejection(promise)) instanceof api.MaxSimError, "MaxSimError");
      }
      await rejects(api, engine.maxsim(), "ERR_VALUE", "q");
    },
  },
];
