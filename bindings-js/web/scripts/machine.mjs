// Where things lie on this machine, which modules are to be silent about.
import { execFileSync } from "node:child_process";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../../..", import.meta.url)).replace(/\/$/, "");
export const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
export const sysroot = execFileSync("rustc", ["--print", "sysroot"], { encoding: "utf8" }).trim();

/** Folders, and what modules call them instead; of folders in each other, the inner ones come last. */
export const FOLDERS = [
  [homedir(), "/home"],
  [process.env.CARGO_HOME ?? join(homedir(), ".cargo"), "/cargo"],
  [sysroot, "/rust"],
  [root, "/maxsim"],
  [target, "/target"],
  ...(process.env.CARGO_BUILD_BUILD_DIR === undefined ? [] : [[process.env.CARGO_BUILD_BUILD_DIR, "/build"]]),
];
