/** What is used of `navigator.gpu` here; the rest is the module's business. */
interface Gpu {
  requestAdapter(): Promise<object | null>;
}

/** Whether this thread has WebGPU at all; if so, there may still be no adapter. */
export const webgpu = (): Gpu | undefined => (globalThis.navigator as { gpu?: Gpu } | undefined)?.gpu;
