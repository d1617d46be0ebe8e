/** The worker's side: runs the calls of a service. */
import { buffers, type Reply, type Request, type Stop } from "./protocol.js";
import { failureOf, type Load, type Service } from "./service.js";

/** The part of a dedicated worker's global scope that is used here; TypeScript's library for workers excludes the page's. */
interface Scope {
  onmessage: ((event: { data: Request }) => void) | null;
  postMessage(message: Reply, transfer?: Transferable[]): void;
}

/** Milliseconds between two looks at a blob: a stop is noticed as soon as people notice, a look is a fraction of it. */
const LOOK_EVERY = 25;

/** Answers the page. */
export function serve(load: Load): void {
  const scope = globalThis as unknown as Scope;
  const stopped = new Set<number>();
  let service: Promise<Service>;

  const answer = async (id: number, work: (service: Service) => unknown): Promise<void> => {
    let module: Service["module"] | undefined;
    const warnings = (): string[] => module?.takeWarnings() ?? [];
    try {
      const loaded = await service;
      module = loaded.module;
      const value = await work(loaded);
      scope.postMessage({ id, value, warnings: warnings() }, [...buffers(value)]);
    } catch (thrown) {
      scope.postMessage({ id, failure: failureOf(thrown, module), warnings: warnings() });
    }
    stopped.delete(id);
  };

  scope.onmessage = ({ data }) => {
    if ("load" in data) {
      service = load(data.load);
      void answer(0, () => undefined);
    } else if ("call" in data) {
      const { id, call, args, stop, progress } = data;
      const asked = asks(stop);
      const context = {
        poll: stop === undefined ? undefined : () => stopped.has(id) || asked(),
        progress: progress ? (...made: [number, number]) => scope.postMessage({ id, progress: made }) : undefined,
      };
      void answer(id, ({ calls }) => calls[call]!(context, ...(args as never[])));
    } else {
      stopped.add(data.stop);
    }
  };
}

/** Whether the page has asked to stop, without waiting for its message. */
function asks(stop: Stop | undefined): () => boolean {
  if (stop === undefined) return () => false;
  if (typeof stop !== "string") return () => Atomics.load(stop, 0) !== 0;
  let next = performance.now() + LOOK_EVERY;
  return () => {
    const now = performance.now();
    if (now < next) return false;
    const is = gone(stop);
    // Where a look takes long, fewer of them.
    next = performance.now() + Math.max(LOOK_EVERY, 20 * (performance.now() - now));
    return is;
  };
}

/** Whether a blob's URL was revoked. `false` where pages may not ask (`connect-src` without `blob:`). */
function gone(url: string): boolean {
  if (!(looking ??= exists(URL.createObjectURL(new Blob())))) return false;
  return !exists(url);
}

/** Whether looking works here at all. */
let looking: boolean | undefined;

function exists(url: string): boolean {
  try {
    const request = new XMLHttpRequest();
    // The one way to ask without letting go of the thread. On a worker, where nobody waits for it to draw, it is fine.
    request.open("GET", url, false);
    request.send();
    return true;
  } catch {
    return false;
  }
}
