/**
 * What can be configured, and from where: `--flag value`, else the environment variable, else the default.
 * {@link SETTINGS} is the only list; flags, variables, checks and `--help` follow from it.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

/** Configuration of the service. Times are in milliseconds, sizes in bytes. */
export interface Config {
  host: string;
  /** 0 takes a free one. */
  port: number;
  encoder: "static" | "onnx";
  /** Folder of the ONNX model. */
  model: string | undefined;
  /** Paths of indexes by the names they are searched under. */
  indexes: ReadonlyMap<string, string>;
  /** Files or folders of texts by the names they are searched under. */
  texts: ReadonlyMap<string, string>;
  /** CPU threads of the engine and of ONNX; `undefined` takes one per core. */
  threads: number | undefined;
  /** Batches that are computed at the same time, per stage. */
  concurrency: number;
  /** One of these has to be presented; empty admits everybody. */
  apiKeys: readonly string[];
  /** Requests between their header and the end of their response; further ones are answered 429. */
  maxRequests: number;
  /** Bodies of those requests in total; further ones are answered 429. */
  maxBytes: number;
  bodyLimit: number;
  /** Limit of JSON bodies, which are parsed on the event loop. */
  jsonLimit: number;
  maxDocuments: number;
  /** Tokens of a document that are scored unless the request says otherwise. */
  maxTokensPerDoc: number;
  headersTimeout: number;
  /** From the first byte of a request to its last. */
  bodyTimeout: number;
  /** From the header of a request to its response. */
  requestTimeout: number;
  keepAliveTimeout: number;
  /** How long a service told to stop says so (readiness, `Connection: close`) before it stops listening. */
  drainDelay: number;
  /** How long it then waits for what it accepted. */
  shutdownTimeout: number;
  logLevel: "fatal" | "error" | "warn" | "info" | "debug" | "trace" | "silent";
}

interface Setting {
  readonly flag: string;
  readonly env: string;
  readonly default: string;
  readonly help: string;
  /** The value as {@link Config} has it; throws {@link Expected}. */
  parse(text: string): unknown;
}

/** A mistake in flags or environment; `message` names the setting. */
export class ConfigError extends Error {
  static {
    Object.defineProperty(this.prototype, "name", { value: "ConfigError", configurable: true, writable: true });
  }
}

/** What a setting's text should have been. */
class Expected extends Error {}

const MAX_TIMER = 2 ** 31 - 1;

function integer(minimum: number, maximum = Number.MAX_SAFE_INTEGER) {
  return (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < minimum || value > maximum) throw new Expected(`an integer from ${minimum} to ${maximum}`);
    return value;
  };
}

const milliseconds = (minimum: number) => integer(minimum, MAX_TIMER);

function bytes(text: string): number {
  const match = /^(\d+)(?:(k|m|g)(?:ib|b)?)?$/i.exec(text);
  const value = match ? Number(match[1]) * 1024 ** ["", "k", "m", "g"].indexOf((match[2] ?? "").toLowerCase()) : 0;
  if (value < 1 || !Number.isSafeInteger(value)) throw new Expected("a size such as 65536, 64k, 64MiB");
  return value;
}

function paths(text: string): Map<string, string> {
  const entries = text.split(",").filter((entry) => entry.trim() !== "").map((entry) => /^\s*([\w.-]+)=(.+)$/.exec(entry));
  const found = new Map(entries.map((match) => [match?.[1] ?? "", match?.[2] ?? ""]));
  if (found.has("") || found.size < entries.length) throw new Expected("name=path, name=path, … with different names of letters, digits, - . _");
  return found;
}

function oneOf(...allowed: string[]) {
  return (text: string): string => {
    if (!allowed.includes(text)) throw new Expected(`one of ${allowed.join(", ")}`);
    return text;
  };
}

function optional<T>(parse: (text: string) => T) {
  return (text: string): T | undefined => (text === "" ? undefined : parse(text));
}

/** Every setting, in the order of `--help`. */
export const SETTINGS: { readonly [K in Exclude<keyof Config, "apiKeys">]: Setting } = {
  host: { flag: "host", env: "HOST", default: "127.0.0.1", help: "address to listen on; 0.0.0.0 for all", parse: String },
  port: { flag: "port", env: "PORT", default: "8787", help: "port; 0 takes a free one", parse: integer(0, 65535) },
  encoder: { flag: "encoder", env: "MAXSIM_ENCODER", default: "static", help: "static (built in) or onnx", parse: oneOf("static", "onnx") },
  model: { flag: "model", env: "MAXSIM_MODEL", default: "", help: "folder of an ONNX ColBERT model", parse: optional(String) },
  indexes: { flag: "indexes", env: "MAXSIM_INDEXES", default: "", help: "indexes to search: name=path, …", parse: paths },
  texts: { flag: "texts", env: "MAXSIM_TEXTS", default: "", help: "texts to search, kept in memory: name=path, …", parse: paths },
  threads: { flag: "threads", env: "MAXSIM_THREADS", default: "", help: "CPU threads [one per core]", parse: optional(integer(1, 1024)) },
  concurrency: { flag: "concurrency", env: "MAXSIM_CONCURRENCY", default: "2", help: "batches computed at a time, per stage", parse: integer(1, 64) },
  maxRequests: { flag: "max-requests", env: "MAXSIM_MAX_REQUESTS", default: "64", help: "requests in the service; more are answered 429", parse: integer(1) },
  maxBytes: { flag: "max-bytes", env: "MAXSIM_MAX_BYTES", default: "256MiB", help: "bodies in the service; more are answered 429", parse: bytes },
  bodyLimit: { flag: "body-limit", env: "MAXSIM_BODY_LIMIT", default: "64MiB", help: "largest body", parse: bytes },
  jsonLimit: { flag: "json-limit", env: "MAXSIM_JSON_LIMIT", default: "8MiB", help: "largest JSON body", parse: bytes },
  maxDocuments: { flag: "max-documents", env: "MAXSIM_MAX_DOCUMENTS", default: "1000", help: "documents of a request with texts", parse: integer(1) },
  maxTokensPerDoc: { flag: "max-tokens-per-doc", env: "MAXSIM_MAX_TOKENS_PER_DOC", default: "4096", help: "tokens of a text that are scored", parse: integer(1) },
  headersTimeout: { flag: "headers-timeout", env: "MAXSIM_HEADERS_TIMEOUT", default: "5000", help: "ms to receive a header", parse: milliseconds(1) },
  bodyTimeout: { flag: "body-timeout", env: "MAXSIM_BODY_TIMEOUT", default: "15000", help: "ms to receive a whole request", parse: milliseconds(1) },
  requestTimeout: { flag: "request-timeout", env: "MAXSIM_REQUEST_TIMEOUT", default: "30000", help: "ms from a request's header to its response", parse: milliseconds(1) },
  keepAliveTimeout: { flag: "keep-alive-timeout", env: "MAXSIM_KEEP_ALIVE_TIMEOUT", default: "72000", help: "ms that idle connections are kept", parse: milliseconds(1) },
  drainDelay: { flag: "drain-delay", env: "MAXSIM_DRAIN_DELAY", default: "500", help: "ms between SIGTERM and refusing connections", parse: milliseconds(0) },
  shutdownTimeout: { flag: "shutdown-timeout", env: "MAXSIM_SHUTDOWN_TIMEOUT", default: "30000", help: "ms to finish accepted requests", parse: milliseconds(1) },
  logLevel: { flag: "log-level", env: "MAXSIM_LOG_LEVEL", default: "info", help: "fatal, error, warn, info, debug, trace or silent", parse: oneOf("fatal", "error", "warn", "info", "debug", "trace", "silent") },
};

/** Keys are secrets: from the environment or a file, never from a flag, which other users of the machine can read. */
const API_KEYS = "MAXSIM_API_KEYS";
const API_KEY_FILE = "api-key-file";

/**
 * Configuration from flags and environment.
 *
 * @throws {ConfigError} for an unknown flag, a value that is not allowed, or settings that contradict each other.
 */
export function readConfig(args: readonly string[] = [], env: Readonly<Record<string, string | undefined>> = {}): Config {
  const flags = readFlags(args);
  const values: Record<string, unknown> = {};
  for (const [key, setting] of Object.entries<Setting>(SETTINGS)) {
    const flag = flags[setting.flag];
    const [from, text] =
      flag !== undefined ? [`--${setting.flag}`, flag] : env[setting.env] ? [setting.env, env[setting.env]!] : ["", setting.default];
    try {
      values[key] = setting.parse(text);
    } catch (error) {
      throw new ConfigError(`${from}: expected ${(error as Expected).message}, got ${JSON.stringify(text)}`);
    }
  }
  const config = { ...values, apiKeys: readKeys(flags[API_KEY_FILE], env[API_KEYS]) } as unknown as Config;
  check(config);
  return config;
}

/** Text of `--help`. */
export function help(): string {
  const lines = Object.values<Setting>(SETTINGS).map(
    (s) => `  ${`--${s.flag}`.padEnd(22)}${s.env.padEnd(27)}${s.help}${s.default && ` [${s.default}]`}`,
  );
  return `maxsim-server: reranking and late-interaction scoring over HTTP

Usage: maxsim-server [--flag value …]

  ${"flag".padEnd(22)}${"environment".padEnd(27)}meaning [default]
${lines.join("\n")}
  ${`--${API_KEY_FILE}`.padEnd(22)}${"".padEnd(27)}file with API keys, one per line [none: open to everybody]
  ${"".padEnd(22)}${API_KEYS.padEnd(27)}API keys, separated by commas
  --help, --version`;
}

function readFlags(args: readonly string[]): Record<string, string | undefined> {
  const names = [...Object.values<Setting>(SETTINGS).map((s) => s.flag), API_KEY_FILE];
  try {
    const options = Object.fromEntries(names.map((name) => [name, { type: "string" as const }]));
    return parseArgs({ args: [...args], options, strict: true }).values as Record<string, string | undefined>;
  } catch (error) {
    throw new ConfigError((error as Error).message);
  }
}

function readKeys(file: string | undefined, list: string | undefined): string[] {
  let text = list?.replaceAll(",", "\n") ?? "";
  if (file !== undefined) {
    try {
      text = readFileSync(file, "utf8");
    } catch (error) {
      throw new ConfigError(`--${API_KEY_FILE}: ${(error as Error).message}`);
    }
  }
  const keys = text.split("\n").map((key) => key.trim()).filter((key) => key !== "");
  // An empty file or variable is a mistake that would open the service.
  if ((file !== undefined || list !== undefined) && keys.length === 0) {
    throw new ConfigError(`${file !== undefined ? `--${API_KEY_FILE}` : API_KEYS}: expected at least one key, got none`);
  }
  return keys;
}

function check(config: Config): void {
  if (config.encoder === "onnx" && config.model === undefined) {
    throw new ConfigError("--model: expected the folder of a model, since --encoder is onnx, got none");
  }
  if (config.encoder === "static" && config.model !== undefined) {
    throw new ConfigError("--model: expected none, since --encoder is static; did you mean --encoder onnx?");
  }
  const both = [...config.texts.keys()].find((name) => config.indexes.has(name));
  if (both !== undefined) throw new ConfigError(`--texts: expected names that --indexes does not have, got ${JSON.stringify(both)}`);
  if (config.jsonLimit > config.bodyLimit) throw new ConfigError("--json-limit: expected at most --body-limit");
  if (config.bodyLimit > config.maxBytes) throw new ConfigError("--body-limit: expected at most --max-bytes");
  if (config.headersTimeout > config.bodyTimeout) throw new ConfigError("--headers-timeout: expected at most --body-timeout");
}
