// Builds the WebAssembly modules: cargo, wasm-bindgen, wasm-opt. JavaScript goes to `wasm/`, from where scripts/build.mjs
// bundles it, modules and data go to `dist/`. Arguments: names of modules; none: all.
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FOLDERS, root, sysroot, target } from "./machine.mjs";
import { shorten } from "./names.mjs";

const packageDir = join(root, "bindings-js/web");
const [wasm, dist] = [join(packageDir, "wasm"), join(packageDir, "dist")];

/** Features of browsers since 2022; what is on here already, rustc uses without asking. */
const FEATURES = [
  "bulk-memory", "nontrapping-float-to-int", "sign-ext", "mutable-globals", "reference-types", "multivalue",
];

/** `glue`: the JavaScript, which modules of the same exports share. */
const MODULES = [
  { name: "cpu-simd", glue: "cpu", features: "cpu", simd: true },
  { name: "cpu-scalar", glue: "cpu", features: "cpu", simd: false },
  { name: "gpu", glue: "gpu", features: "gpu", simd: false },
  { name: "gpu-all", glue: "gpu-all", features: "gpu-all", simd: false },
  { name: "plaid-simd", glue: "plaid", features: "plaid", simd: true },
  // Its closures have names of their own.
  { name: "plaid-scalar", glue: "plaid-scalar", features: "plaid", simd: false },
  { name: "encoder", glue: "encoder", features: "encoder", simd: false },
];

const run = (command, args, options = {}) => execFileSync(command, args, { cwd: root, stdio: "inherit", ...options });

/**
 * The standard library is compiled along, without what panics say: a tenth of every module. Compilers of the stable channel do
 * that when they are told to, if its source is there; without it, modules are larger and panics are told in words.
 */
const sources = join(sysroot, "lib/rustlib/src/rust/library/Cargo.lock");
function hasSources() {
  if (!existsSync(sources)) {
    try {
      run("rustup", ["component", "add", "rust-src"]);
    } catch {
      // No rustup, or no network.
    }
  }
  return existsSync(sources);
}
const small = process.env.MAXSIM_WEB_STD !== "prebuilt" && hasSources();
if (!small) console.warn("the standard library is used as it comes: modules are about 15 % larger than they could be");
const SMALL = {
  flags: ["-Zunstable-options", "-Cpanic=immediate-abort", "-Zlocation-detail=none"],
  arguments: ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"],
  environment: { RUSTC_BOOTSTRAP: "1" },
};

const tools = join(target, "tools");
run("cargo", [
  "build", "--quiet", "--release", "--locked", "--manifest-path", join(packageDir, "tools/wasm-bindgen/Cargo.toml"), "--target-dir", tools,
]);

mkdirSync(wasm, { recursive: true });
mkdirSync(dist, { recursive: true });
const wanted = process.argv.slice(2);
for (const { name, glue, features, simd } of MODULES) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  // What modules have in common is compiled once per set of flags.
  const built = join(target, simd ? "web-simd" : "web");
  const flags = [
    ...FOLDERS.map((pair) => `--remap-path-prefix=${pair.join("=")}`),
    ...(simd ? ["-Ctarget-feature=+simd128"] : []),
    ...(small ? SMALL.flags : []),
  ];
  run(
    "cargo",
    [
      "build", "--quiet", "--locked", "--package", "maxsim-web", "--target", "wasm32-unknown-unknown", "--profile", "web",
      "--features", features, "--target-dir", built, ...(small ? SMALL.arguments : []),
    ],
    // Encoded, since paths may have spaces.
    { env: { ...process.env, ...(small ? SMALL.environment : {}), CARGO_ENCODED_RUSTFLAGS: flags.join("\x1f") } },
  );
  const script = join(wasm, `${glue}.js`);
  const previous = MODULES.find((other) => other.glue === glue).name === name ? undefined : readFileSync(script, "utf8");
  run(join(tools, "release/bind"), [join(built, "wasm32-unknown-unknown/web/maxsim_web.wasm"), wasm, glue]);
  writeFileSync(script, shorten(join(wasm, `${glue}_bg.wasm`), readFileSync(script, "utf8")));
  if (previous !== undefined && previous !== readFileSync(script, "utf8")) {
    throw new Error(`${name} needs other JavaScript than the modules it shares ${glue}.js with`);
  }
  const optimised = join(dist, `${name}.wasm`);
  run(process.execPath, [
    join(root, "bindings-js/node_modules/binaryen/bin/wasm-opt"), join(wasm, `${glue}_bg.wasm`), "--output", `${optimised}.new`,
    "-O3", "--strip-debug", "--strip-producers", "--strip-target-features",
    ...FEATURES.map((feature) => `--enable-${feature}`), ...(simd ? ["--enable-simd"] : []),
  ]);
  renameSync(`${optimised}.new`, optimised);
  rmSync(join(wasm, `${glue}_bg.wasm`));
  console.log(`${optimised} ${statSync(optimised).size} bytes`);
}
writeFileSync(join(wasm, "built.json"), JSON.stringify({ small }));
copyFileSync(join(root, "crates/encode/assets/static-en-128.bin"), join(dist, "static-en-128.bin"));
