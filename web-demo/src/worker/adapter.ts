/** What is used of WebGPU here: TypeScript's library does not know it. */
export interface Adapter {
  readonly info: { vendor: string; architecture: string; device: string; description: string; isFallbackAdapter?: boolean };
  readonly features: ReadonlySet<string>;
  readonly limits: Readonly<Record<string, number>>;
}

/** The GPU that WebGPU would take; undefined without one. */
export async function requestAdapter(): Promise<Adapter | undefined> {
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<Adapter | null> } };
  return (await gpu?.requestAdapter()) ?? undefined;
}

/** Browsers tell little, so that pages cannot recognise visitors. */
export const describe = ({ description, device, vendor, architecture }: Adapter["info"]): string =>
  description || device || [vendor, architecture].filter(Boolean).join(" ") || "unnamed GPU";
