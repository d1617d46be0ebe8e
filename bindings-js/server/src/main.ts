#!/usr/bin/env node
/** The command: configuration in, signals handled, exit codes out. 0 stopped well, 1 failed, 2 wrong flags. */
import { ConfigError, help, readConfig } from "./config.js";
import { startService, VERSION } from "./service.js";

const args = process.argv.slice(2);

if (args.includes("--help")) {
  console.log(help());
} else if (args.includes("--version")) {
  console.log(VERSION);
} else {
  try {
    const service = await startService(readConfig(args, process.env));
    let told = false;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        // Whoever asks twice does not want to wait.
        if (told) process.exit(1);
        told = true;
        void service.close().then((finished) => process.exit(finished ? 0 : 1));
      });
    }
    process.on("SIGHUP", () => {
      service.refresh().then(
        () => service.app.log.info("refreshed"),
        (error: unknown) => service.app.log.error({ err: error }, "not refreshed"),
      );
    });
  } catch (error) {
    console.error(`maxsim-server: ${(error as Error).message}`);
    process.exitCode = error instanceof ConfigError ? 2 : 1;
  }
}
