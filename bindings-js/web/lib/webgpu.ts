/** What is used of `navigator.gpu` here; the rest is the module's business. */
interface Gpu {
  requestAdapter(options?: { powerPreference: "high-performance" }): Promise<Adapter | null>;
}

/** Where to look whether a GPU is a program has moved from the adapter to its info. */
interface Adapter {
  readonly isFallbackAdapter?: boolean;
  readonly info?: { readonly isFallbackAdapter?: boolean; readonly architecture: string; readonly description: string };
}

/** Whether a GPU is a program on the CPU, which our own is faster than. Browsers that do not say so may still name it. */
export function isSoftware({ info, isFallbackAdapter }: Adapter): boolean {
  if (info?.isFallbackAdapter ?? isFallbackAdapter) return true;
  return /swiftshader|llvmpipe|lavapipe|softpipe|warp|basic render/i.test(`${info?.architecture} ${info?.description}`);
}

/** Whether this thread has WebGPU at all; if so, there may still be no adapter. */
export const webgpu = (): Gpu | undefined => (globalThis.navigator as { gpu?: Gpu } | undefined)?.gpu;
