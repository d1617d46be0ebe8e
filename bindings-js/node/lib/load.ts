import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { MaxSimError } from "@maxsim/api";
import type { Native } from "@maxsim/api/binding";

/** Platforms a binary may be published for, and what its C library is called in file names. */
const LIBC: Partial<Record<NodeJS.Platform, string>> = { linux: "-gnu", win32: "-msvc", darwin: "" };

/** `<platform>-<architecture>[-<C library>]`, as in the names of the binaries. */
export function platformName(platform: NodeJS.Platform = process.platform, arch: string = process.arch): string {
  return `${platform}-${arch}${LIBC[platform] ?? ""}`;
}

/**
 * The addon for this platform: the one built in `directory`, else that of the package `@maxsim/node-<platform>`, which npm installs
 * where it fits.
 *
 * @throws {MaxSimError} `ERR_UNSUPPORTED` if there is none, or none that loads (say, a glibc binary on musl).
 */
export function loadNative(
  directory: string = fileURLToPath(new URL("..", import.meta.url)),
  platform: string = platformName(),
): Native {
  const require = createRequire(import.meta.url);
  const prebuilt = `@maxsim/node-${platform}`;
  let cause: unknown;
  for (const module of [`${directory}/maxsim.${platform}.node`, prebuilt]) {
    try {
      return require(module) as Native;
    } catch (error) {
      // A binary that is there and does not load says more than one that is not there.
      const missing = (error as NodeJS.ErrnoException).code === "MODULE_NOT_FOUND";
      if (cause === undefined || !missing) cause = error;
      if (!missing) break;
    }
  }
  const what = `@maxsim/node on ${platform}`;
  const hint =
    (cause as NodeJS.ErrnoException).code === "MODULE_NOT_FOUND"
      ? `there is no maxsim.${platform}.node and no package ${prebuilt}; build it with Rust (npm run build), or use @maxsim/web`
      : `its binary does not load: ${(cause as Error).message}`;
  throw new MaxSimError("ERR_UNSUPPORTED", `${what} is not supported: ${hint}`, { what, hint, platform }, { cause });
}
