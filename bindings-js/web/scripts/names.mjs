// Short names for what a module and its JavaScript call in each other: wasm-bindgen's are long, and travel twice.
import { readFileSync, writeFileSync } from "node:fs";

const [IMPORT, EXPORT] = [2, 7];

/** Bytes of a module, read one after the other. */
class Reader {
  at = 0;
  constructor(bytes) {
    this.bytes = bytes;
  }
  number() {
    for (let value = 0, shift = 0; ; shift += 7) {
      const byte = this.bytes[this.at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  }
  slice(length) {
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
  name() {
    return Buffer.from(this.slice(this.number())).toString();
  }
  /** What `skip` passes over. */
  passed(skip) {
    const start = this.at;
    skip();
    return this.bytes.subarray(start, this.at);
  }
}

const number = (value) => {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value & 127) | 128);
  return Buffer.from([...bytes, value]);
};
const name = (text) => Buffer.concat([number(Buffer.byteLength(text)), Buffer.from(text)]);

/** The type of an import: of a function, table, memory, global or tag. */
function importType(reader) {
  const limits = () => {
    const flags = reader.number();
    reader.number();
    if (flags & 1) reader.number();
  };
  switch (reader.number()) {
    case 0: return reader.number();
    case 1: return reader.slice(1), limits();
    case 2: return limits();
    case 3: return reader.slice(2);
    default: return reader.slice(1), reader.number();
  }
}

/** A section with its names replaced. */
function renamed(id, content, rename) {
  const reader = new Reader(content);
  const count = reader.number();
  const parts = [number(count)];
  for (let i = 0; i < count; i++) {
    if (id === IMPORT) parts.push(...rename.import(reader.name(), reader.name()).map(name));
    else parts.push(name(rename.export(reader.name())));
    parts.push(reader.passed(() => (id === IMPORT ? importType(reader) : (reader.slice(1), reader.number()))));
  }
  return Buffer.concat(parts);
}

/** Renames in a module, which is overwritten, and in its JavaScript, which is returned. The same JavaScript gives the same names. */
export function shorten(module, glue) {
  const short = (pattern) => {
    const names = new Set([...glue.matchAll(pattern)].map(([, long]) => long));
    return new Map([...names].map((long, i) => [long, i.toString(36)]));
  };
  // Properties of the object of imports; what is used of the instance.
  const [imports, exports] = [short(/^ {8}(\w+): function/gm), short(/\bwasm\.(\w+)/g)];
  const from = /^ {8}"(\.\/\w[^"]*)": import0,$/m.exec(glue)[1];
  const rename = {
    import(where, long) {
      if (where !== from || !imports.has(long)) throw new Error(`the JavaScript has no import ${long} of ${where}`);
      return ["a", imports.get(long)];
    },
    export: (long) => (exports.has(long) ? `a${exports.get(long)}` : long),
  };
  const bytes = readFileSync(module);
  const reader = new Reader(bytes);
  const parts = [reader.slice(8)];
  while (reader.at < bytes.length) {
    const id = reader.number();
    const content = reader.slice(reader.number());
    const now = id === IMPORT || id === EXPORT ? renamed(id, content, rename) : content;
    parts.push(Buffer.from([id]), number(now.length), now);
  }
  writeFileSync(module, Buffer.concat(parts));
  return glue
    .replace(/^ {8}(\w+): function/gm, (_, long) => `        "${imports.get(long)}": function`)
    .replace(/\bwasm\.(\w+)/g, (_, long) => `wasm.a${exports.get(long)}`)
    .replace(`"${from}": import0`, "a: import0");
}
