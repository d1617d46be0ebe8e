/**
 * For packages that implement the surface: what users see, made out of a native binding.
 *
 * @module
 */
export { createStaticEncoder } from "./encoder.js";
export { createEngine } from "./engine.js";
export type { Host } from "./host.js";
export { decodeResidual, dequantize, quantize } from "./quantize.js";
export type * from "./native.js";
