/** Quantisers and their inverses over a native binding. */
import type {
  CallOptions, DecodeOptions, QuantizedInput, QuantizedTensor, QuantizeOptions, ResidualInput, Tensor, TensorInput,
} from "../index.js";
import { argumentError, boolean, CALL, describe, oneOf, settings, type Schema } from "./check.js";
import { settle, type Host } from "./host.js";
import { heldResidual, residual } from "./residual.js";
import { held, scales, tensor, tensorOf } from "./tokens.js";

const QUANTIZE: Schema<QuantizeOptions> = { scale: oneOf("token", "tensor"), ...CALL };
const DECODE: Schema<DecodeOptions> = { normalize: boolean, ...CALL };
type Fields = { [K in keyof QuantizedInput]?: unknown };
const any = (value: unknown): never => value as never;
const QUANTIZED: Schema<Fields> = { data: any, dtype: any, shape: any, dim: any, scales: any };

export async function quantize(
  host: Host,
  dtype: "fp8" | "int8",
  x: TensorInput,
  options?: QuantizeOptions,
): Promise<QuantizedTensor> {
  const { scale, signal } = settings<QuantizeOptions>(options, "options", QUANTIZE);
  const raw = tensor(x, "x");
  const { values, scales } = await settle(host, [held(raw)], signal, (cancel) =>
    host.native.quantize(raw, dtype, scale, cancel),
  );
  return { ...values, scales } as QuantizedTensor;
}

export async function dequantize(host: Host, x: QuantizedInput, options?: CallOptions): Promise<Tensor> {
  const { signal } = settings<CallOptions>(options, "options", CALL);
  if (typeof x !== "object" || x === null || ArrayBuffer.isView(x)) {
    throw argumentError("ERR_VALUE", "x", "{ data, shape, scales } or { data, dim, scales }", describe(x));
  }
  const { scales: given, ...rest } = settings<Fields>(x, "x", QUANTIZED);
  const raw = tensorOf(rest as TensorInput, "x");
  const factors = scales(given, "x.scales");
  const values = await settle(host, [held(raw), { argument: "x.scales", view: factors }], signal, (cancel) =>
    host.native.dequantize(raw, factors, cancel),
  );
  return values as Tensor;
}

export async function decodeResidual(host: Host, d: ResidualInput, options?: DecodeOptions): Promise<Tensor> {
  const { normalize, signal } = settings<DecodeOptions>(options, "options", DECODE);
  const raw = residual(d, "d");
  const values = await settle(host, heldResidual(raw), signal, (cancel) =>
    host.native.decodeResidualDocuments(raw, normalize, cancel),
  );
  return values as Tensor;
}
