/** What the page and its worker say to each other. Everything here is plain data. */

export type Backend = "wgpu" | "cpu";

/** What can be searched: the glosses that come with the page, an index on its server, or the visitor's files. */
export type CollectionName = "glosses" | "index" | "files";

/** Where a query token found its best match in a document. */
export interface Match {
  /** Query token. */
  readonly query: number;
  /** Document token. */
  readonly token: number;
  /** Where that token stands in the document's text, as `String.prototype.slice` counts; empty for special tokens. */
  readonly start: number;
  readonly end: number;
  /** What the pair adds to the score. */
  readonly similarity: number;
}

export interface Hit {
  /** Position in the collection. */
  readonly document: number;
  readonly title: string;
  /** Where in a file it stands. */
  readonly place: string;
  readonly text: string;
  readonly score: number;
  /** One per query token that has a match, in the order of the query. */
  readonly matches: readonly Match[];
}

export interface Answer {
  readonly collection: CollectionName;
  /** Counts changes of what is searched with what: similarities can be asked for while it is the same. */
  readonly version: number;
  readonly query: string;
  /** Query tokens as the query spells them. */
  readonly tokens: readonly string[];
  readonly hits: readonly Hit[];
  /** Documents that were searched, and tokens that were compared with the query. */
  readonly documents: number;
  readonly documentTokens: number;
  readonly encodeMs: number;
  readonly searchMs: number;
  readonly backend: Backend;
  /** The model that ranked the best `candidates` of the first stage anew, if one did. */
  readonly model?: string;
  readonly candidates?: number;
}

/** Similarity of every query token with every token of one document. */
export interface Similarities {
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** `[rows, columns]` */
  readonly values: Float32Array;
  /** `[rows]`: the best column of every row. */
  readonly winners: Int32Array;
}

/** How far something is. `fraction` is undefined where nobody knows. */
export interface Progress {
  readonly what: string;
  readonly fraction: number | undefined;
}

export interface EngineFacts {
  readonly backend: Backend;
  readonly device: string;
  readonly level: string;
  readonly threads: number;
}

/** Facts about what is running. */
export interface State {
  readonly engine: EngineFacts;
  /** Why the page cannot use WebGPU here; undefined if it can. */
  readonly noWebgpu: string | undefined;
  /** Name of the encoder of the first stage. */
  readonly encoder: string;
  /** Name of the model of the second, if there is one. */
  readonly model: string | undefined;
  readonly version: number;
  readonly glosses: number;
  /** Whether the index is open. */
  readonly index: boolean;
  readonly files: readonly OwnFile[];
  /** Whether files outlive the page. */
  readonly kept: boolean;
}

export interface OwnFile {
  readonly id: string;
  readonly name: string;
  readonly bytes: number;
  readonly encoding: string;
  readonly passages: number;
}

/** What became of a file that was added. */
export interface Added {
  readonly name: string;
  /** Why it was refused. */
  readonly problem?: string;
  /** What the visitor should know although it was not refused. */
  readonly note?: string;
}

/** A line of the device panel. */
export interface Fact {
  readonly name: string;
  readonly value: string;
}

export interface FactGroup {
  readonly title: string;
  readonly facts: readonly Fact[];
}

export type Runner = "WebGPU" | "CPU, SIMD" | "CPU, no SIMD" | "Plain JavaScript";

/** A measurement of one runner over the first `documents` glosses. */
export interface Measured {
  readonly runner: Runner;
  readonly documents: number;
  /** Median of `runs`. */
  readonly ms: number;
  readonly runs: number;
  readonly gflops: number;
}

export interface BenchmarkEvents {
  /** What is being measured. */
  readonly running?: string;
  readonly measured?: Measured;
  readonly unavailable?: { readonly runner: Runner; readonly why: string };
}

/** Where a model comes from: an address of a folder, or the files of a local one. */
export type ModelSource = { readonly url: string } | { readonly files: readonly File[] };
