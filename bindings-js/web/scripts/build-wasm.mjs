// Builds the WebAssembly modules: cargo, wasm-bindgen, wasm-opt. JavaScript goes to `wasm/`, from where scripts/build.mjs
// bundles it, modules and data go to `dist/`. Arguments: names of modules; none: all.
import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
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
  { name: "cpu-all", glue: "cpu-all", features: "cpu-all", simd: true },
  { name: "cpu-scalar", glue: "cpu-all", features: "cpu-all", simd: false },
  { name: "gpu", glue: "gpu", features: "gpu", simd: false },
  { name: "gpu-all", glue: "gpu-all", features: "gpu-all", simd: false },
  { name: "plaid-simd", glue: "plaid", features: "plaid", simd: true },
  { name: "plaid-all", glue: "plaid-all", features: "plaid-all", simd: true },
  // Its closures have names of their own.
  { name: "plaid-scalar", glue: "plaid-scalar", features: "plaid-all", simd: false },
  { name: "plaid-gpu", glue: "plaid-gpu", features: "plaid-gpu", simd: false },
  { name: "plaid-gpu-all", glue: "plaid-gpu-all", features: "plaid-gpu-all", simd: true },
  { name: "encoder", glue: "encoder", features: "encoder", simd: false },
];

const run = (command, args) => execFileSync(command, args, { cwd: root, stdio: "inherit" });

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

mkdirSync(wasm, { recursive: true });
mkdirSync(dist, { recursive: true });
const wanted = process.argv.slice(2);
const modules = MODULES.filter(({ name }) => wanted.length === 0 || wanted.includes(name));

/** Runs a program beside others; its words come when it is done. */
async function start(command, args, options = {}) {
  const { stdout, stderr } = await promisify(execFile)(command, args, { cwd: root, maxBuffer: 1 << 28, ...options }).catch((error) => {
    process.stderr.write(error.stderr ?? "");
    throw new Error(`${command} ${args.slice(0, 3).join(" ")} …: ${error.code ?? error.signal}`);
  });
  process.stdout.write(stdout);
  process.stderr.write(stderr);
}

// Beside the first modules, which need it when they are compiled.
const tools = join(target, "tools");
const binding = start("cargo", [
  "build", "--quiet", "--release", "--locked", "--manifest-path", join(packageDir, "tools/wasm-bindgen/Cargo.toml"), "--target-dir", tools,
]);
// Said where it is awaited.
binding.catch(() => {});

/** A module out of cargo, and its JavaScript; these go to a folder of the module's own, and optimising comes later. */
async function compile({ name, glue, features, simd }) {
  // What modules have in common is compiled once per set of flags.
  const built = join(target, simd ? "web-simd" : "web");
  const flags = [
    ...FOLDERS.map((pair) => `--remap-path-prefix=${pair.join("=")}`),
    ...(simd ? ["-Ctarget-feature=+simd128"] : []),
    ...(small ? SMALL.flags : []),
  ];
  await start(
    "cargo",
    [
      "build", "--quiet", "--locked", "--package", "maxsim-web", "--target", "wasm32-unknown-unknown", "--profile", "web",
      "--features", features, "--target-dir", built, ...(small ? SMALL.arguments : []),
    ],
    // Encoded, since paths may have spaces.
    { env: { ...process.env, ...(small ? SMALL.environment : {}), CARGO_ENCODED_RUSTFLAGS: flags.join("\x1f") } },
  );
  const own = join(wasm, name);
  await binding;
  await start(join(tools, "release/bind"), [join(built, "wasm32-unknown-unknown/web/maxsim_web.wasm"), own, glue]);
  const script = join(own, `${glue}.js`);
  writeFileSync(script, shorten(join(own, `${glue}_bg.wasm`), readFileSync(script, "utf8")));
}

async function optimise({ name, glue, simd }) {
  const optimised = join(dist, `${name}.wasm`);
  await start(process.execPath, [
    join(root, "bindings-js/node_modules/binaryen/bin/wasm-opt"), join(wasm, name, `${glue}_bg.wasm`), "--output", `${optimised}.new`,
    // What belongs together lies together, and compresses better.
    "-O3", "--reorder-functions-by-name", "--strip-debug", "--strip-producers", "--strip-target-features",
    ...FEATURES.map((feature) => `--enable-${feature}`), ...(simd ? ["--enable-simd"] : []),
  ]);
  renameSync(`${optimised}.new`, optimised);
  console.log(`${optimised} ${statSync(optimised).size} bytes`);
}

// One compiler at a time per set of flags, each of which is a single thread most of the time, and the optimiser beside them.
const chains = [true, false].map(async (simd) => {
  const optimising = [];
  for (const module of modules.filter((module) => module.simd === simd)) {
    await compile(module);
    optimising.push(optimise(module));
    // Said at once, not when the chain is done.
    optimising.at(-1).catch(() => {});
  }
  await Promise.all(optimising);
});
await Promise.all(chains);
for (const { name, glue } of modules) {
  const script = readFileSync(join(wasm, name, `${glue}.js`), "utf8");
  const first = MODULES.find((other) => other.glue === glue).name;
  if (first === name) writeFileSync(join(wasm, `${glue}.js`), script);
  else if (script !== readFileSync(join(wasm, `${glue}.js`), "utf8")) {
    throw new Error(`${name} needs other JavaScript than the modules it shares ${glue}.js with`);
  }
  rmSync(join(wasm, name), { recursive: true });
}
writeFileSync(join(wasm, "built.json"), JSON.stringify({ small }));
copyFileSync(join(root, "crates/encode/assets/static-en-128.bin"), join(dist, "static-en-128.bin"));
