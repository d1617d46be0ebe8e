// What wasm-bindgen writes; `scripts/build-wasm.mjs` runs it. `module.ts` says what is in there.
declare module "#cpu";
declare module "#cpu-all";
declare module "#encoder";
declare module "#gpu";
declare module "#gpu-all";
declare module "#plaid";
declare module "#plaid-all";
declare module "#plaid-scalar";
declare module "#plaid-gpu";
declare module "#plaid-gpu-all";
