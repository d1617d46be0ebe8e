// The backends that the addon has, for tests that run on each of them.
import * as api from "@maxsim/node";

/**
 * An engine on every backend: `{ backend, create, missing }`, where `missing` says what this machine lacks. A GPU in software
 * (lavapipe) is one, too. MAXSIM_SPEC_BACKENDS names some of them, separated by commas; then none may be missing.
 */
export async function backends() {
  const asked = process.env.MAXSIM_SPEC_BACKENDS?.split(",");
  const found = [];
  for (const backend of asked ?? ["cpu", "wgpu", "cuda"]) {
    const create = (options) => api.createEngine({ backend, silent: true, ...options });
    let missing;
    try {
      await (await create()).dispose();
    } catch (error) {
      if (asked !== undefined || error.code !== "ERR_UNSUPPORTED") throw error;
      missing = error.message;
    }
    found.push({ backend, create, missing });
  }
  return found;
}
