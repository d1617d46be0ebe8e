// Builds the WebAssembly modules: cargo, wasm-bindgen, wasm-opt. JavaScript goes to `wasm/`, from where scripts/build.mjs
// bundles it, modules and data go to `dist/`. Arguments: names of modules; none: all.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const packageDir = join(dirname(fileURLToPath(import.meta.url)), "..");
const root = join(packageDir, "../..");
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
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
  { name: "plaid-simd", glue: "plaid", features: "plaid", simd: true },
  // Its closures have names of their own.
  { name: "plaid-scalar", glue: "plaid-scalar", features: "plaid", simd: false },
  { name: "encoder", glue: "encoder", features: "encoder", simd: false },
];

const run = (command, args, options = {}) => execFileSync(command, args, { cwd: root, stdio: "inherit", ...options });

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
  const flags = simd ? "-C target-feature=+simd128" : "";
  run(
    "cargo",
    [
      "build", "--quiet", "--locked", "--package", "maxsim-web", "--target", "wasm32-unknown-unknown", "--profile", "web",
      "--features", features, "--target-dir", built,
    ],
    { env: { ...process.env, RUSTFLAGS: flags } },
  );
  const previous = MODULES.find((other) => other.glue === glue).name === name ? undefined : readFileSync(join(wasm, `${glue}.js`), "utf8");
  run(join(tools, "release/bind"), [join(built, "wasm32-unknown-unknown/web/maxsim_web.wasm"), wasm, glue]);
  if (previous !== undefined && previous !== readFileSync(join(wasm, `${glue}.js`), "utf8")) {
    throw new Error(`${name} needs other JavaScript than the modules it shares ${glue}.js with`);
  }
  const optimised = join(dist, `${name}.wasm`);
  run(process.execPath, [
    join(root, "bindings-js/node_modules/binaryen/bin/wasm-opt"), join(wasm, `${glue}_bg.wasm`), "--output", `${optimised}.new`,
    "-O3", "--strip-debug", "--strip-producers",
    ...FEATURES.map((feature) => `--enable-${feature}`), ...(simd ? ["--enable-simd"] : []),
  ]);
  renameSync(`${optimised}.new`, optimised);
  rmSync(join(wasm, `${glue}_bg.wasm`));
  console.log(`${optimised} ${statSync(optimised).size} bytes`);
}
copyFileSync(join(root, "crates/encode/assets/static-en-128.bin"), join(dist, "static-en-128.bin"));
