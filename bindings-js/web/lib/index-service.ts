/** The calls of one index: a thread has one, so that disposing it gives its memory back. */
import type { IndexInfo } from "@maxsim/api";
import type {
  RawBatch, RawBuildOptions, RawCount, RawEngineOptions, RawIds, RawIndexSearch, RawSelection, RawTokens,
} from "@maxsim/api/binding";
import type { IndexEngine, PlaidModule, WasmBuild, WasmFiles, WasmIndex, WasmRemoteIndex } from "./module.js";
import {
  BUILDING, contentsOf, Directory, find, MANIFEST, nameOf, rangesAt, rangesOf, readPack, restore, telling, worded, type Content, type Place,
} from "./places.js";
import { failure, type Context, type Service } from "./service.js";

/** What a change says: how many documents it was about, and what the index is like now. */
export interface Changed extends RawCount {
  info: IndexInfo;
}

export function indexService(module: PlaidModule): Service {
  let engine: IndexEngine | undefined;
  let files: WasmFiles;
  /** What keeps the files; without one memory alone does. */
  let directory: Directory | undefined;
  let build: WasmBuild | undefined;
  let index: WasmIndex | undefined;
  /** In its stead: one that is read by and by. */
  let remote: WasmRemoteIndex | undefined;

  const opened = (): WasmIndex => {
    if (remote !== undefined) {
      const [what, hint] = ["changing, verifying or packing an index that was opened lazily", "open it without lazy"];
      throw failure("ERR_UNSUPPORTED", `${what} is not supported: ${hint}`, { what, hint });
    }
    if (index === undefined) throw failure("ERR_DISPOSED", "index was disposed", { what: "index" });
    return index;
  };

  /** Calls that change something, one after the other: in between they wait for the file system. */
  let last: Promise<unknown> = Promise.resolve();
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(work);
    last = turn.catch(() => {});
    return turn;
  }

  const changed = ({ count }: RawCount): Changed => ({ count, info: opened().info() });

  const change = (work: (index: WasmIndex) => RawCount): Promise<Changed> =>
    inTurn(async () => {
      if (directory !== undefined && !directory.locked) {
        await directory.lock();
        // What others have written since it was opened.
        await directory.load(files, [MANIFEST, BUILDING], {});
        opened().refresh();
        await directory.sweep(files);
      }
      const count = work(opened());
      try {
        await directory?.keep(files);
      } catch (error) {
        opened().reset!();
        throw error;
      }
      return changed(count);
    });

  /** A step of a build, and what it finished on the way. */
  const step = <T>(work: (build: WasmBuild) => T): Promise<T> =>
    inTurn(async () => {
      const result = work(build!);
      await directory!.keep(files);
      return result;
    });

  return {
    module,
    calls: {
      /** `contents`: of an index that was open elsewhere, as it was there. */
      async open(context: Context, options: RawEngineOptions, place: Place, lazy: boolean, contents?: Content[]) {
        engine = await module.createEngine(options);
        if (contents !== undefined) {
          if (!("bytes" in place)) {
            const found = await find(place);
            if (found instanceof Directory) directory = found;
          }
          files = new module.WasmFiles(directory?.name ?? nameOf(place));
          restore(files, contents);
          index = engine.openIndex(files);
          return { info: index.info() };
        }
        const [name, found] = [nameOf(place), await find(place)];
        if (lazy && found !== undefined && !(found instanceof Directory || found instanceof Uint8Array)) {
          const ranges = found instanceof Blob ? rangesOf(found) : await rangesAt(found.url);
          if (ranges !== undefined) {
            remote = await engine.openRemoteIndex!(name, ranges.size, worded(ranges), telling(context));
            return { info: remote.info() };
          }
        }
        if (found instanceof Directory) {
          directory = found;
          files = new module.WasmFiles(directory.name);
          await directory.load(files, [MANIFEST], context);
          // Only to say that there is one.
          if (!files.names().includes(MANIFEST)) await directory.load(files, [MANIFEST, BUILDING], context);
        } else {
          files = new module.WasmFiles(name);
          if (found !== undefined) {
            await readPack(files, name, found, context);
            const pack = files;
            files = module.WasmFiles.unpack(name, pack);
            pack.free();
          }
        }
        index = engine.openIndex(files);
        return { info: index.info() };
      },
      async create(context: Context, options: RawEngineOptions, place: Place, building: RawBuildOptions) {
        engine = await module.createEngine(options);
        const found = await find(place, true);
        if (!(found instanceof Directory)) {
          const [argument, expected, got] = ["path", "a directory", nameOf(place)];
          throw failure("ERR_VALUE", `${argument}: expected ${expected}, got ${got}`, { argument, expected, got });
        }
        directory = found;
        await directory.lock();
        files = new module.WasmFiles(directory.name);
        // Of an index that is there, the manifest is enough.
        await directory.load(files, [BUILDING], context);
        await directory.peek(files, MANIFEST);
        build = engine.createBuild!(files, building);
        return build.state();
      },
      state: () => step((build) => build.state()),
      sample: ({ poll }, documents: RawTokens) => step((build) => build.sample(documents, poll)),
      train: ({ poll }) => step((build) => build.train(poll)),
      encode: ({ poll }, batch: RawBatch) => step((build) => build.add(batch, poll)),
      async finish() {
        const finished = await step((build) => build.finish());
        build!.free();
        build = undefined;
        await directory!.sweep(files);
        directory!.release();
        index = finished;
        return { info: index.info() };
      },
      contents: () =>
        inTurn(async () => {
          opened();
          return contentsOf(files);
        }),
      search: ({ poll }, q: RawTokens, options: RawIndexSearch) => (remote ?? opened()).search(q, options, poll),
      add: ({ poll }, batch: RawBatch, replace: boolean) => change((index) => index.add!(batch, replace, poll)),
      delete: ({ poll }, which: RawSelection) => change((index) => index.delete!(which, poll)),
      compact: ({ poll }) => change((index) => index.compact!(poll)),
      refresh: () =>
        inTurn(async () => {
          // What was opened from one file stays as it is.
          if (remote !== undefined) return { count: remote.info().documents, info: remote.info() };
          // The writer's memory is ahead of everyone.
          if (directory !== undefined && !directory.locked) await directory.load(files, [MANIFEST], {});
          return changed(opened().refresh());
        }),
      verify: () => inTurn(async () => opened().verify()),
      pack: () => inTurn(async () => opened().pack()),
      metadata: (_, ids: RawIds) => (remote ?? opened()).metadata(ids),
    },
    close() {
      directory?.release();
      for (const held of [index, remote, build, files, engine]) held?.free();
      index = remote = build = engine = undefined;
    },
  };
}
