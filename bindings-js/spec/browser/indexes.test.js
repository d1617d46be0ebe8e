// PLAID indexes where only browsers have them: URLs, blobs, handles, and a file system that may be full.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch, missing } from "./chromium.mjs";
import { serve } from "./server.mjs";

const PAGE = "/spec/browser/page.html";

describe("indexes in Chromium", { skip: missing }, () => {
  let server, browser, page;
  before(async () => {
    server = await serve();
    browser = await launch();
    page = await browser.open(`${server.origin}${PAGE}`);
    await page.waitForFunction("globalThis.ready");
    await page.evaluate(() => {
      /** Documents in which a few of so many directions are repeated with noise, as those of a text are. */
      globalThis.makeCorpus = ({ count, len, dim, topics = 400, seed = 1 }) => {
        let state = seed;
        const random = () => {
          state = (Math.imul(state, 1664525) + 1013904223) | 0;
          return state / 2 ** 31;
        };
        const directions = Float32Array.from({ length: topics * dim }, random);
        const document = (i, to, at) => {
          state = Math.imul(i + 1, 2654435761) ^ seed;
          for (let t = 0; t < len; t++) {
            const topic = Math.floor(((random() + 1) / 2) * topics) * dim;
            for (let k = 0; k < dim; k++) to[at + t * dim + k] = directions[topic + k] + 0.6 * random();
          }
        };
        return {
          *batches(size = 500) {
            for (let first = 0; first < count; first += size) {
              const n = Math.min(size, count - first);
              const data = new Float32Array(n * len * dim);
              for (let i = 0; i < n; i++) document(first + i, data, i * len * dim);
              yield { documents: { data, shape: [n, len, dim] } };
            }
          },
          /** Some tokens of a document, blurred. */
          query(i, tokens) {
            const data = new Float32Array(len * dim);
            document(i, data, 0);
            return data.slice(0, tokens * dim).map((x) => x + 0.2 * random());
          },
        };
      };
      globalThis.put = (name, bytes) => fetch(`/put/${name}`, { method: "PUT", body: bytes });
      /** A small index, as bytes. */
      globalThis.small = async (engine, options) => {
        const corpus = makeCorpus({ count: 600, len: 8, dim: 32, topics: 60 });
        const path = `opfs:small-${crypto.randomUUID()}`;
        const index = await engine.buildIndex({ path, documents: () => corpus.batches(200), centroids: 64, ...options });
        return { corpus, path, index, bytes: await index.pack() };
      };
      globalThis.code = (promise) => promise.then(() => "fine", (error) => `${error.code ?? error.name}`);
    });
  });
  after(async () => {
    await browser?.close();
    server?.close();
  });

  test("10,000 documents of 60 tokens and 128 dimensions at 2 bit: 30 MB at most, loaded with progress, searched, and searched by ranges", { timeout: 900_000 }, async () => {
    const built = await page.evaluate(async () => {
      const [count, len, dim] = [10_000, 60, 128];
      globalThis.large = makeCorpus({ count, len, dim });
      const engine = await api.createEngine({ backend: "cpu", silent: true });
      const phases = new Set();
      const start = performance.now();
      // Fewer centroids and iterations than are usual, for the time it takes.
      const index = await engine.buildIndex({
        path: "opfs:large", documents: () => large.batches(), nbits: 2, centroids: 512, iterations: 1,
        onProgress: ({ phase }) => phases.add(phase),
      });
      const seconds = (performance.now() - start) / 1000;
      await put("large", await index.pack());
      const info = index.info();
      await index.dispose();
      await engine.dispose();
      return { seconds, phases: [...phases], info };
    });
    const { info } = built;
    assert.deepEqual([info.documents, info.tokens, info.dim, info.nbits], [10_000, 600_000, 128, 2]);
    assert.deepEqual(built.phases, ["sampling", "training", "encoding"]);
    const packed = server.put.files.get("large").bytes.length;
    console.log(`built in the page in ${built.seconds.toFixed(1)} s: ${(packed / 1e6).toFixed(1)} MB, ${info.bytesPerToken.toFixed(1)} bytes per token`);
    assert.ok(packed <= 30e6, `${packed} bytes`);

    const opened = async (source, options) => {
      server.put.sent = 0;
      const result = await page.evaluate(async ([source, options]) => {
        const engine = await api.createEngine({ backend: "cpu", silent: true });
        const told = [];
        const start = performance.now();
        globalThis.index = await engine.openIndex(source, { ...options, onProgress: (...at) => told.push(at) });
        globalThis.indexEngine = engine;
        return { seconds: (performance.now() - start) / 1000, told };
      }, [source, options]);
      return { ...result, sent: server.put.sent };
    };
    const searched = async (options) => {
      server.put.sent = 0;
      const result = await page.evaluate(async (options) => {
        const [times, ids, hits] = [[], [], []];
        for (const i of [17, 4321, 9999, 5000, 1234]) {
          const start = performance.now();
          const [found] = await index.search(large.query(i, 32), { topK: 10, ...options });
          times.push(performance.now() - start);
          ids.push([i, Number(found[0].id)]);
          hits.push(found.map(({ id, score }) => [`${id}`, score]));
        }
        return { times, ids, hits };
      }, options);
      const times = result.times.map((ms) => ms.toFixed(0)).join(", ");
      return { ...result, times, sent: server.put.sent };
    };
    const closed = () => page.evaluate(async () => {
      await index.dispose();
      await indexEngine.dispose();
    });

    const stored = await opened("opfs:large");
    const expected = await searched();
    console.log(`from the browser's file system in ${stored.seconds.toFixed(2)} s; searches in ${expected.times} ms`);
    assert.ok(expected.ids.every(([asked, found]) => asked === found), JSON.stringify(expected.ids));
    const few = await searched({ nFullScores: 256 });
    await closed();

    const whole = await opened("/put/large");
    assert.deepEqual((await searched()).hits, expected.hits);
    await closed();
    console.log(`from a URL in ${whole.seconds.toFixed(2)} s, ${whole.told.length} reports of progress`);
    assert.equal(whole.sent, packed);
    for (const { told } of [stored, whole]) {
      assert.ok(told.length >= 5 && told.every(([loaded], i) => i === 0 || loaded > told[i - 1][0]), "it grows");
      assert.equal(told.at(-1)[0], told.at(-1)[1]);
    }
    assert.equal(whole.told.at(-1)[1], packed);

    const lazy = await opened("/put/large", { lazy: true });
    const first = await searched({ nFullScores: 256 });
    const second = await searched({ nFullScores: 256 });
    const all = await searched();
    await closed();
    const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
    console.log(
      `by ranges: opened in ${lazy.seconds.toFixed(2)} s with ${megabytes(lazy.sent)} MB; five searches of 64 candidates each ` +
      `${megabytes(first.sent)} MB in ${first.times} ms, again ${second.sent} bytes in ${second.times} ms; ` +
      `of 1,024 candidates another ${megabytes(all.sent)} MB in ${all.times} ms`,
    );
    assert.deepEqual(first.hits, few.hits);
    assert.deepEqual(second.hits, few.hits);
    assert.deepEqual(all.hits, expected.hits);
    assert.ok(lazy.told.length >= 5 && lazy.told.at(-1)[0] === lazy.told.at(-1)[1]);
    assert.ok(lazy.sent < packed / 2, `${lazy.sent} of ${packed} bytes to open it`);
    assert.ok(first.sent > 0 && lazy.sent + first.sent < packed * 0.9, `${lazy.sent} + ${first.sent} of ${packed} bytes`);
    assert.equal(second.sent, 0, "what was read is kept");
  });

  for (const worker of [true, false]) {
    test(`URLs, blobs, files and directories hold the same index (worker: ${worker})`, async () => {
      const outcome = await page.evaluate(async (worker) => {
        const engine = await api.createEngine({ backend: "cpu", worker, silent: true });
        const { corpus, path, index, bytes } = await small(engine);
        await put("small", bytes);
        const root = await navigator.storage.getDirectory();
        const name = `small-${crypto.randomUUID()}.mxi`;
        const file = await root.getFileHandle(name, { create: true });
        const stream = await file.createWritable();
        await stream.write(bytes);
        await stream.close();
        const directory = await root.getDirectoryHandle(path.slice("opfs:".length));
        const query = corpus.query(33, 6);
        // So few candidates that some are cut.
        const options = { topK: 7, nFullScores: 80, nIvfProbe: 4, explain: true };
        const show = (hits) => JSON.stringify(hits, (_, v) => (typeof v === "bigint" ? `${v}` : v));
        const expected = show(await index.search(query, options));
        const wrong = [];
        const blob = new Blob([bytes]);
        for (const [what, source, settings] of [
          ["URL", new URL("/put/small", location.href)], ["relative URL", "/put/small"], ["blob", blob], ["bytes", bytes],
          ["file handle", file], ["path of a file", `opfs:${name}`], ["directory handle", directory], ["path", path],
          ["blob's URL", URL.createObjectURL(blob)],
          ["lazy URL", "/put/small", { lazy: true }], ["lazy blob", blob, { lazy: true }], ["lazy file", file, { lazy: true }],
          ["lazy path of a file", `opfs:${name}`, { lazy: true }], ["lazy directory", path, { lazy: true }], ["lazy bytes", bytes, { lazy: true }],
          ["lazy, no ranges", "/whole/small", { lazy: true }],
        ]) {
          const opened = await engine.openIndex(source, settings);
          if (show(await opened.search(query, options)) !== expected) wrong.push(what);
          if (show(opened.info()) !== show(index.info())) wrong.push(`facts of ${what}`);
          if ((await opened.metadata(3)) === undefined) wrong.push(`metadata of ${what}`);
          await opened.dispose();
        }
        const lazy = await engine.openIndex("/put/small", { lazy: true });
        const refused = [await code(lazy.add({ documents: { data: new Float32Array(32), shape: [1, 1, 32] } })), await code(lazy.verify()), await code(lazy.pack())];
        await lazy.refresh();
        await index.dispose();
        await engine.dispose();
        return { wrong, refused };
      }, worker);
      assert.deepEqual(outcome, { wrong: [], refused: ["ERR_UNSUPPORTED", "ERR_UNSUPPORTED", "ERR_UNSUPPORTED"] });
    });
  }

  test("what comes from a server may be missing, foreign, cut, damaged, newer or replaced", async () => {
    const codes = await page.evaluate(async () => {
      const engine = await api.createEngine({ backend: "cpu", silent: true });
      const { corpus, index, bytes } = await small(engine);
      await index.dispose();
      const changed = (change) => {
        const copy = bytes.slice();
        return change(copy) ?? copy;
      };
      await put("html", new TextEncoder().encode("<!doctype html>".repeat(10)));
      await put("cut", bytes.slice(0, bytes.length >> 1));
      await put("stub", bytes.slice(0, 40));
      await put("damaged", changed((copy) => void (copy[copy.length - 1000] ^= 1)));
      await put("newer", changed((copy) => void (copy[8] = 2)));
      await put("fine", bytes);
      const found = {};
      for (const lazy of [false, true]) {
        for (const name of ["nothing", "html", "cut", "stub", "damaged", "newer"]) {
          const all = async () => {
            const opened = await engine.openIndex(`/put/${name}`, { lazy });
            await opened.search(corpus.query(5, 6), { topK: 1, exact: true });
          };
          found[`${name}${lazy ? ", lazily" : ""}`] = await code(all());
        }
      }
      const opened = await engine.openIndex("/put/fine", { lazy: true });
      await put("fine", bytes);
      found.replaced = await code(opened.search(corpus.query(5, 6), { topK: 1 }));
      found["no server"] = await code(engine.openIndex("http://127.0.0.1:9/index"));
      found["no URL"] = await code(engine.openIndex("http://"));
      found["a URL to build at"] = await code(engine.buildIndex({ path: "/put/x", documents: () => [] }));
      await engine.dispose();
      return found;
    });
    const each = { nothing: "ERR_IO", html: "ERR_FORMAT", cut: "ERR_CORRUPT", stub: "ERR_CORRUPT", damaged: "ERR_CORRUPT", newer: "ERR_VERSION" };
    assert.deepEqual(codes, {
      ...each, ...Object.fromEntries(Object.entries(each).map(([name, code]) => [`${name}, lazily`, code])),
      replaced: "ERR_IO", "no server": "ERR_IO", "no URL": "ERR_VALUE", "a URL to build at": "ERR_VALUE",
    });
  });

  test("loading ends when its signal says so", async () => {
    const outcome = await page.evaluate(async () => {
      const engine = await api.createEngine({ backend: "cpu", silent: true });
      await put("slow", new Uint8Array(1 << 23));
      const controller = new AbortController();
      let aborted;
      const onProgress = () => {
        aborted ??= performance.now();
        controller.abort("enough");
      };
      const reason = await engine
        .openIndex("/put/slow?slowly=200", { signal: controller.signal, onProgress })
        .catch((error) => error);
      const took = performance.now() - aborted;
      await engine.dispose();
      return { reason, took };
    });
    assert.equal(outcome.reason, "enough");
    // The whole takes more than six seconds.
    assert.ok(outcome.took < 1000, `after ${outcome.took} ms`);
  });

  test("a disk that is full loses nothing", async () => {
    const outcome = await page.evaluate(async () => {
      // On the page's thread, where its file system can be spoiled.
      const engine = await api.createEngine({ backend: "cpu", worker: false, silent: true });
      const { corpus, path, index } = await small(engine);
      const more = [...corpus.batches(100)][1];
      const batch = { documents: more.documents, ids: Array.from({ length: 100 }, (_, i) => 1000 + i) };
      const { createWritable } = FileSystemFileHandle.prototype;
      const seen = [];
      for (let room = 0; ; room++) {
        let left = room;
        FileSystemFileHandle.prototype.createWritable = function (...args) {
          if (left-- <= 0) throw new DOMException("no room", "QuotaExceededError");
          return createWritable.apply(this, args);
        };
        const outcome = await code(index.add(batch));
        FileSystemFileHandle.prototype.createWritable = createWritable;
        const reader = await engine.openIndex(path);
        seen.push([outcome, index.info().documents, reader.info().documents, (await index.search(corpus.query(9, 6), { topK: 1 }))[0][0].id === 9n]);
        await reader.verify();
        await reader.dispose();
        if (outcome === "fine") break;
      }
      await index.delete({ ids: [1000] });
      const names = [];
      const directory = await (await navigator.storage.getDirectory()).getDirectoryHandle(path.slice("opfs:".length));
      for await (const name of directory.keys()) names.push(name.replace(/-.*/, ""));
      const last = index.info().documents;
      await index.dispose();
      await engine.dispose();
      return { seen, last, names: names.sort() };
    });
    assert.ok(outcome.seen.length >= 3, JSON.stringify(outcome));
    for (const seen of outcome.seen.slice(0, -1)) assert.deepEqual(seen, ["ERR_IO", 600, 600, true]);
    assert.deepEqual(outcome.seen.at(-1), ["fine", 700, 700, true]);
    assert.equal(outcome.last, 699);
    assert.deepEqual(outcome.names.filter((name) => !["codec", "manifest.mxi", "segment"].includes(name)), []);
  });

  test("a browser that cannot write, and a page without a file system, say so", async () => {
    const codes = await page.evaluate(async () => {
      const engine = await api.createEngine({ backend: "cpu", worker: false, silent: true });
      const { index, path, bytes } = await small(engine);
      const { createWritable } = FileSystemFileHandle.prototype;
      delete FileSystemFileHandle.prototype.createWritable;
      const { getDirectory } = StorageManager.prototype;
      const change = await code(index.delete({ ids: [1] }));
      const build = await code(small(engine));
      FileSystemFileHandle.prototype.createWritable = createWritable;
      delete StorageManager.prototype.getDirectory;
      const open = await code(engine.openIndex(path));
      const elsewhere = await code(engine.openIndex(bytes).then((index) => index.dispose()));
      StorageManager.prototype.getDirectory = getDirectory;
      await index.delete({ ids: [1] });
      const { documents } = index.info();
      await index.dispose();
      await engine.dispose();
      return [change, build, open, elsewhere, documents];
    });
    assert.deepEqual(codes, ["ERR_UNSUPPORTED", "ERR_UNSUPPORTED", "ERR_UNSUPPORTED", "fine", 599]);
  });

  test("a page that is closed in the middle of a build leaves what the next one goes on with, and no lock", async () => {
    const dying = await browser.open(`${server.origin}${PAGE}`);
    await dying.waitForFunction("globalThis.ready");
    await dying.evaluate(`globalThis.makeCorpus = ${await page.evaluate("makeCorpus.toString()")}`);
    await dying.evaluate(async () => {
      const engine = await api.createEngine({ backend: "cpu", silent: true });
      const corpus = makeCorpus({ count: 600, len: 8, dim: 32, topics: 60 });
      let passes = 0;
      const documents = async function* () {
        for (const batch of (passes++, corpus.batches(100))) {
          if (passes === 2) globalThis.second = true;
          yield batch;
          if (passes === 2) await new Promise(() => {});
        }
      };
      void engine.buildIndex({ path: "opfs:dying", documents, centroids: 64 });
    });
    await dying.waitForFunction("globalThis.second");
    const outcome = await page.evaluate(async () => {
      const engine = await api.createEngine({ backend: "cpu", silent: true });
      const locked = await code(engine.buildIndex({ path: "opfs:dying", documents: () => [] }));
      globalThis.goingOn = async () => {
        const phases = new Set();
        const corpus = makeCorpus({ count: 600, len: 8, dim: 32, topics: 60 });
        const index = await engine.buildIndex({
          path: "opfs:dying", documents: () => corpus.batches(100), centroids: 64, onProgress: ({ phase }) => phases.add(phase),
        });
        const { documents } = index.info();
        await index.verify();
        await index.dispose();
        await engine.dispose();
        return { phases: [...phases], documents };
      };
      return locked;
    });
    assert.equal(outcome, "ERR_LOCKED");
    await dying.close();
    assert.deepEqual(await page.evaluate(() => goingOn()), { phases: ["encoding"], documents: 600 });
  });

  test("on the page, too, the GPU searches an index as the CPU does, whatever is left out of it", async () => {
    const outcome = await page.evaluate(async () => {
      const options = { worker: false, silent: true };
      const [cpu, gpu] = await Promise.all(["cpu", "wgpu"].map((backend) => api.createEngine({ backend, ...options })));
      const { corpus, bytes, index } = await small(cpu, { encoder: { name: "of a test", fingerprint: 7n } });
      await index.dispose();
      const queries = [3, 77, 311, 598].map((i) => ({ data: corpus.query(i, 5), shape: [5, 32] }));
      const differ = [];
      let compared = 0;
      const compare = async (one, other, what, options) => {
        for (const [i, query] of queries.entries()) {
          const [[a], [b]] = [await one.search(query, options), await other.search(query, options)];
          // Among scores that are the same but for rounding, the order is a matter of it.
          const scores = new Map(a.map(({ id, score }) => [id, score]));
          const last = a.at(-1)?.score;
          for (const { id, score } of b) {
            const own = scores.get(id) ?? last;
            if (Math.abs(own - score) > 1e-4) differ.push(`${what}, query ${i}: ${id} has ${score}, expected ${own}`);
          }
          if (a.length !== b.length || a.length === 0) differ.push(`${what}, query ${i}: ${b.length} hits, expected ${a.length}`);
          if (options.explain && a[0].id === b[0].id && `${a[0].winners}` !== `${b[0].winners}`) differ.push(`${what}, query ${i}: winners`);
          compared += b.length;
        }
      };
      const [ofCpu, ofGpu] = [await cpu.openIndex(bytes), await gpu.openIndex(bytes)];
      const ids = Array.from({ length: 100 }, (_, i) => 6 * i);
      const everywhere = async (what) => {
        await compare(ofCpu, ofGpu, `${what}, by default`, { topK: 10 });
        await compare(ofCpu, ofGpu, `${what}, exact`, { topK: 10, exact: true, explain: true });
        await compare(ofCpu, ofGpu, `${what}, few probes`, { topK: 5, nIvfProbe: 2, nFullScores: 64 });
        await compare(ofCpu, ofGpu, `${what}, of some`, { topK: 10, ids });
      };
      await everywhere("as built");
      // What is changed is uploaded again.
      for (const one of [ofCpu, ofGpu]) {
        await one.delete({ ids: [3, 77] });
        await one.add({ documents: { data: corpus.query(598, 8), shape: [1, 8, 32] }, ids: [5000] });
      }
      await everywhere("after changes");
      const [hit] = (await ofGpu.search(queries[3], { topK: 3 }))[0];
      const [lazy] = (await (await gpu.openIndex(new Blob([bytes]), { lazy: true })).search(queries[0], { topK: 3 }))[0];
      const wrong = await code(ofGpu.search({ data: new Float32Array(31), shape: [1, 31] }, { topK: 1 }));
      await ofGpu.dispose();
      const late = await code(ofGpu.search(queries[0], { topK: 1 }));
      for (const one of [ofCpu, cpu, gpu]) await one.dispose();
      return { differ, compared, hit: `${hit.id}`, lazy: `${lazy.id}`, wrong, late };
    });
    assert.deepEqual(outcome.differ, []);
    assert.ok(outcome.compared > 250, `${outcome.compared} hits compared`);
    assert.ok(["598", "5000"].includes(outcome.hit), outcome.hit);
    assert.deepEqual([outcome.lazy, outcome.wrong, outcome.late], ["3", "ERR_SHAPE", "ERR_DISPOSED"]);
  });

  test("an index that the GPU has no room for is searched on the CPU, unless the GPU was asked for", async () => {
    const own = await browser.open(`${server.origin}${PAGE}`);
    await own.waitForFunction("globalThis.ready");
    const bytes = await page.evaluate(async () => {
      const cpu = await api.createEngine({ backend: "cpu", silent: true });
      const { index, bytes } = await small(cpu);
      await index.dispose();
      await cpu.dispose();
      return [...bytes];
    });
    const outcome = await own.evaluate(async (bytes) => {
      // A GPU that does not say that it is software is taken by itself.
      Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });
      for (const name of ["architecture", "description"]) Object.defineProperty(GPUAdapterInfo.prototype, name, { get: () => "of a test" });
      const told = [];
      console.warn = (message) => told.push(message);
      const query = new Float32Array(4 * 32).map((_, i) => Math.sin(i));
      const options = { worker: false, gpuMemory: 1 << 16 };
      const found = {};
      for (const [name, more] of [["auto", {}], ["silent", { silent: true }], ["wgpu", { backend: "wgpu" }], ["cpu", { backend: "cpu" }]]) {
        const engine = await api.createEngine({ ...options, ...more });
        const index = await engine.openIndex(Uint8Array.from(bytes));
        const search = () => index.search(query, { topK: 5 }).then(([hits]) => hits.map(({ id, score }) => `${id} ${score}`), (error) => error.code);
        found[name] = [engine.info.backend, await search(), await search(), told.splice(0)];
        await index.dispose();
        await engine.dispose();
      }
      return found;
    }, bytes);
    const [, hits] = outcome.cpu;
    assert.equal(hits.length, 5);
    const { auto: [backend, once, twice, told] } = outcome;
    assert.deepEqual([backend, once, twice], ["wgpu", hits, hits]);
    assert.equal(told.length, 1, `${told}`);
    assert.match(told[0], /the CPU searches an index that wgpu cannot: out of memory/);
    assert.deepEqual(outcome.silent, ["wgpu", hits, hits, []]);
    assert.deepEqual(outcome.wgpu, ["wgpu", "ERR_OUT_OF_MEMORY", "ERR_OUT_OF_MEMORY", []]);
    await own.close();
  });
});
