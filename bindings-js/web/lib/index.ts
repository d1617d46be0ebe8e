/**
 * Late-interaction MaxSim scoring and search for browsers. The surface is that of `@maxsim/api`.
 *
 * @module
 */
import type {
  CallOptions, DecodeOptions, Engine, EngineOptions, LoadOptions, QuantizedInput, QuantizedTensor, QuantizeOptions,
  ResidualInput, StaticEncoder, Tensor, TensorInput,
} from "@maxsim/api";
import * as over from "@maxsim/api/binding";
import { native } from "./native.js";

export * from "@maxsim/api";

const host: over.Host = {
  native,
  warn: (message) => console.warn(`maxsim: ${message}`),
};

/**
 * Sets a backend up, on a worker of its own unless `worker` is false: WebGPU where the browser has a GPU for it, else the CPU;
 * `info.passedOver` says why.
 *
 * @throws {MaxSimError} `ERR_UNSUPPORTED` for a backend or SIMD level that this browser lacks, or where workers may not be
 * started; `ERR_IO` if the package's files cannot be loaded; `ERR_VALUE` for an unknown option or value.
 */
export async function createEngine(options?: EngineOptions): Promise<Engine> {
  return over.createEngine(host, options);
}

/**
 * The English encoder, on a worker of its own. Its model (4 MB) is loaded when this is called.
 *
 * @throws {MaxSimError} `ERR_IO` if the package's files cannot be loaded.
 */
export async function createStaticEncoder(options?: LoadOptions): Promise<StaticEncoder> {
  return over.createStaticEncoder(host, options);
}

/** See `Api.quantizeFp8` of `@maxsim/api`. */
export async function quantizeFp8(x: TensorInput, options?: QuantizeOptions): Promise<QuantizedTensor> {
  return over.quantize(host, "fp8", x, options);
}

/** See `Api.quantizeInt8` of `@maxsim/api`. */
export async function quantizeInt8(x: TensorInput, options?: QuantizeOptions): Promise<QuantizedTensor> {
  return over.quantize(host, "int8", x, options);
}

/** See `Api.dequantize` of `@maxsim/api`. */
export async function dequantize(x: QuantizedInput, options?: CallOptions): Promise<Tensor> {
  return over.dequantize(host, x, options);
}

/** See `Api.decodeResidual` of `@maxsim/api`. */
export async function decodeResidual(d: ResidualInput, options?: DecodeOptions): Promise<Tensor> {
  return over.decodeResidual(host, d, options);
}
