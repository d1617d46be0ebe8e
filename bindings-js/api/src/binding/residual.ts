/** From what users pass as codes and residuals to {@link RawResidual}. */
import type { CodesInput, ResidualCodec, ResidualInput } from "../index.js";
import { argumentError, count, describe, floats, integers, oneOf, settings, typed, type Schema } from "./check.js";
import type { Held } from "./host.js";
import type { RawCodec, RawCodes, RawResidual } from "./native.js";
import { held, path, tensor } from "./tokens.js";

type Loose<T> = { [K in keyof T]?: unknown };
const any = (value: unknown): never => value as never;
const layout = oneOf("plaid", "lik");

/** Names only: the values are checked where the path to them is known. */
const CODES: Schema<Loose<CodesInput>> = { codes: any, lengths: any, offsets: any };
const CODEC: Schema<Loose<ResidualCodec>> = { centroids: any, bucketWeights: any, nbits: any, layout: any };
export const RESIDUAL: Schema<Loose<ResidualInput>> = { ...CODES, ...CODEC, residuals: any, invNorms: any };

/** Whether an operand is meant as residual documents. */
export function isResidual(value: unknown): value is ResidualInput {
  return typeof value === "object" && value !== null && ("codes" in value || "residuals" in value);
}

function object(value: unknown, argument: string, expected: string): void {
  if (typeof value === "object" && value !== null && !ArrayBuffer.isView(value)) return;
  throw argumentError("ERR_VALUE", argument, expected, describe(value));
}

function codesOf(given: Loose<CodesInput>, name: string): RawCodes {
  const at = (field: keyof CodesInput): string => path(name, field);
  const codes = integers(given.codes, at("codes"));
  if (given.offsets !== undefined && given.lengths !== undefined) {
    throw argumentError("ERR_VALUE", at("offsets"), "either offsets (packed) or lengths (padded)", "both");
  }
  if (given.lengths !== undefined) return { name, codes, lengths: integers(given.lengths, at("lengths")) };
  if (given.offsets !== undefined) return { name, codes, offsets: integers(given.offsets, at("offsets")) };
  throw argumentError("ERR_SHAPE", at("offsets"), "offsets (packed) or lengths (padded)", "none");
}

function codecOf(given: Loose<ResidualCodec>, name: string): RawCodec {
  const at = (field: keyof ResidualCodec): string => path(name, field);
  // Read in the wrong order, residuals still look like vectors, so that a default would go unnoticed.
  if (given.layout === undefined) throw argumentError("ERR_VALUE", at("layout"), "one of plaid, lik", "none");
  return {
    name,
    centroids: tensor(given.centroids, at("centroids")),
    bucketWeights: floats(given.bucketWeights, at("bucketWeights")),
    nbits: count(given.nbits, at("nbits")),
    layout: layout(given.layout, at("layout")),
  };
}

/** Codes with their lengths or offsets. */
export function codes(value: unknown, name: string): RawCodes {
  object(value, name, "{ codes, lengths } or { codes, offsets }");
  return codesOf(settings<Loose<CodesInput>>(value, name, CODES), name);
}

/** Centroids and buckets. */
export function codec(value: unknown, name: string): RawCodec {
  object(value, name, "{ centroids, bucketWeights, nbits, layout }");
  return codecOf(settings<Loose<ResidualCodec>>(value, name, CODEC), name);
}

/** Residual documents. */
export function residual(value: unknown, name: string): RawResidual {
  object(value, name, "{ codes, residuals, centroids, bucketWeights, nbits, layout, lengths or offsets }");
  return residualOf(settings<Loose<ResidualInput>>(value, name, RESIDUAL), name);
}

/** Residual documents from their fields. */
export function residualOf(given: Loose<ResidualInput>, name: string): RawResidual {
  const raw: RawResidual = {
    codes: codesOf(given, name),
    residuals: typed<Uint8Array>("Uint8Array", given.residuals, path(name, "residuals")),
    codec: codecOf(given, name),
  };
  if (given.invNorms !== undefined) raw.invNorms = tensor(given.invNorms, path(name, "invNorms"));
  return raw;
}

/** What a call holds of codes. */
export const heldCodes = ({ name, codes }: RawCodes): Held => ({ argument: path(name, "codes"), view: codes });

/** What a call holds of residual documents. */
export function heldResidual({ codes, residuals, codec, invNorms }: RawResidual): Held[] {
  return [
    heldCodes(codes),
    { argument: path(codes.name, "residuals"), view: residuals },
    held(codec.centroids),
    ...(invNorms ? [held(invNorms)] : []),
  ];
}
