// Runs level-selftest in Node: node tests/wasi.mjs MODULE.wasm FILE.safetensors LEVEL, or MODULE.wasm --bench LEVEL.
// The exit status is the program's.
import { readFile } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { WASI } from 'node:wasi';

const [module, file, level] = process.argv.slice(2);
if (level === undefined) {
  console.error('usage: node wasi.mjs MODULE.wasm (FILE.safetensors | --bench) LEVEL');
  process.exit(2);
}

// The program sees the folder of the file and nothing else.
const bench = file === '--bench';
const wasi = new WASI({
  version: 'preview1',
  args: [basename(module), bench ? file : `/fixtures/${basename(file)}`, level],
  preopens: bench ? {} : { '/fixtures': dirname(resolve(file)) },
  returnOnExit: true,
});
const { instance } = await WebAssembly.instantiate(await readFile(module), wasi.getImportObject());
process.exitCode = wasi.start(instance);
