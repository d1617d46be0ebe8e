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
 * The addon in `directory` for this platform.
 *
 * @throws {MaxSimError} `ERR_UNSUPPORTED` if there is none, or none that loads (say, a glibc binary on musl).
 */
export function loadNative(
  directory: string = fileURLToPath(new URL("..", import.meta.url)),
  platform: string = platformName(),
): Native {
  const file = `maxsim.${platform}.node`;
  try {
    return createRequire(import.meta.url)(`${directory}/${file}`) as Native;
  } catch (cause) {
    const what = `@maxsim/node on ${platform}`;
    const missing = (cause as NodeJS.ErrnoException).code === "MODULE_NOT_FOUND";
    const hint = missing
      ? `this package has no ${file}; build it with Rust (npm run build), or use @maxsim/web`
      : `${file} does not load: ${(cause as Error).message}`;
    throw new MaxSimError("ERR_UNSUPPORTED", `${what} is not supported: ${hint}`, { what, hint, platform }, { cause });
  }
}
