/**
 * The service as a library: `const service = await startService(readConfig(["--port", "0"]))`.
 *
 * @module
 */
export { ConfigError, readConfig, type Config } from "./config.js";
export { startService, type Service } from "./service.js";
