// The platforms that binaries are published for: the name in file and package names, what npm compares with the machine, and
// Rust's name.
export const PLATFORMS = {
  "linux-x64-gnu": { os: ["linux"], cpu: ["x64"], libc: ["glibc"], target: "x86_64-unknown-linux-gnu" },
  "linux-arm64-gnu": { os: ["linux"], cpu: ["arm64"], libc: ["glibc"], target: "aarch64-unknown-linux-gnu" },
  "darwin-arm64": { os: ["darwin"], cpu: ["arm64"], target: "aarch64-apple-darwin" },
  "darwin-x64": { os: ["darwin"], cpu: ["x64"], target: "x86_64-apple-darwin" },
  "win32-x64-msvc": { os: ["win32"], cpu: ["x64"], target: "x86_64-pc-windows-msvc" },
  "win32-arm64-msvc": { os: ["win32"], cpu: ["arm64"], target: "aarch64-pc-windows-msvc" },
};
