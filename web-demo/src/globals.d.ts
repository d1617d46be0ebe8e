/** The index that was published with the page, if one was: see `scripts/index.mjs`. */
declare const __INDEX__: { readonly documents: number; readonly bytes: number } | undefined;
