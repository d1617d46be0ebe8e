// The text of every kernel variant that browsers compile, from the crate that holds them.
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

/** `[{ label, requires, source }]` */
export function variants() {
  const cwd = fileURLToPath(new URL("../../..", import.meta.url));
  const command = ["run", "--quiet", "--package", "maxsim-shaders", "--example", "variants"];
  return JSON.parse(execFileSync("cargo", command, { cwd, encoding: "utf8", maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "inherit"] }));
}

/** What `device` says against the variants it should compile. Runs in pages, too. */
export async function compile(device, variants) {
  const problems = [];
  for (const { label, source } of variants) {
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code: source });
    const { messages } = await module.getCompilationInfo();
    const error = await device.popErrorScope();
    const first = messages.find(({ type }) => type === "error");
    if (error || first) problems.push(`${label}:${first?.lineNum}: ${first?.message ?? error.message}`);
  }
  return problems;
}
