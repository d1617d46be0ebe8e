/**
 * Late-interaction MaxSim scoring and search for Node. The surface is that of `@maxsim/api`.
 *
 * @module
 */
import type {
  CallOptions, DecodeOptions, Engine, EngineOptions, LoadOptions, QuantizedInput, QuantizedTensor, QuantizeOptions,
  ResidualInput, StaticEncoder, Tensor, TensorInput,
} from "@maxsim/api";
import { fileURLToPath } from "node:url";
import * as over from "@maxsim/api/binding";
import { loadNative } from "./load.js";

export * from "@maxsim/api";

let host: over.Host | undefined;

/** Loads the addon on first use, so that importing this package never throws. */
function binding(): over.Host {
  return (host ??= {
    native: loadNative(),
    warn: (message) => process.emitWarning(message, "MaxSimWarning"),
    filePath: fileURLToPath,
  });
}

/**
 * Sets a backend up. Computing happens on libuv's thread pool and the engine's own threads, not on the event loop.
 *
 * @throws {MaxSimError} `ERR_UNSUPPORTED` for a backend or SIMD level that this package or machine lacks, or if the
 * package has no binary for this platform; `ERR_VALUE` for an unknown option or value.
 */
export async function createEngine(options?: EngineOptions): Promise<Engine> {
  return over.createEngine(binding(), options);
}

/**
 * The embedded English encoder; its table is read on the first call.
 *
 * @throws {MaxSimError} `ERR_UNSUPPORTED` if the package has no binary for this platform.
 */
export async function createStaticEncoder(options?: LoadOptions): Promise<StaticEncoder> {
  return over.createStaticEncoder(binding(), options);
}

/** See `Api.quantizeFp8` of `@maxsim/api`. */
export async function quantizeFp8(x: TensorInput, options?: QuantizeOptions): Promise<QuantizedTensor> {
  return over.quantize(binding(), "fp8", x, options);
}

/** See `Api.quantizeInt8` of `@maxsim/api`. */
export async function quantizeInt8(x: TensorInput, options?: QuantizeOptions): Promise<QuantizedTensor> {
  return over.quantize(binding(), "int8", x, options);
}

/** See `Api.dequantize` of `@maxsim/api`. */
export async function dequantize(x: QuantizedInput, options?: CallOptions): Promise<Tensor> {
  return over.dequantize(binding(), x, options);
}

/** See `Api.decodeResidual` of `@maxsim/api`. */
export async function decodeResidual(d: ResidualInput, options?: DecodeOptions): Promise<Tensor> {
  return over.decodeResidual(binding(), d, options);
}
