// The ways in which @maxsim/web computes.

export const CONFIGURATIONS = [
  { name: "WebGPU, worker", options: { backend: "wgpu" }, info: ["wgpu", "portable"] },
  { name: "WebGPU, page", options: { backend: "wgpu", worker: false }, info: ["wgpu", "portable"] },
  { name: "CPU, SIMD, worker", options: { backend: "cpu" }, info: ["cpu", "simd128"] },
  { name: "CPU, SIMD, worker of an isolated page", options: { backend: "cpu" }, info: ["cpu", "simd128"], query: "?isolated" },
  { name: "CPU, SIMD, page", options: { backend: "cpu", worker: false }, info: ["cpu", "simd128"] },
  { name: "CPU, scalar, worker", options: { backend: "cpu", cpuLevel: "generic" }, info: ["cpu", "generic"] },
];
