// Element types, masks, lengths, and what is empty.
import {
  close, cross, equal, fromBf16, fromE4m3, fromF16, ok, scores, sequences, toBf16, toF16, vectors,
} from "./support.js";

const DIM = 16;
const QX = vectors(11, 3 * DIM);
const DX = vectors(12, 6 * DIM);
const SHAPE = [2, 3, DIM];
const Q = { data: QX, dim: DIM };
const reference = (values, extra) => sequences({ values, dim: DIM, ...extra });
const query = (extra) => reference(QX, { shape: [3, DIM], ...extra });
const expected = (documents, normalize) => scores(cross(query(), documents), normalize).scores;

export const inputs = [
  {
    name: "16-bit types, as Uint16Array and as Float16Array",
    async run({ engine }) {
      for (const [dtype, to, from] of [["f16", toF16, fromF16], ["bf16", toBf16, fromBf16]]) {
        const data = Uint16Array.from(DX, to);
        const want = expected(reference(Float32Array.from(data, from), { shape: SHAPE }));
        close((await engine.maxsim(Q, { data, shape: SHAPE, dtype })).scores, want, 1e-4);
        const packed = await engine.packPadded(
          { data: Uint16Array.from(QX, to), shape: [1, 3, DIM], dtype },
          { data, shape: [1, ...SHAPE], dtype },
        );
        equal([packed.d.dtype, packed.d.data], [dtype, data], "packed documents");
      }
      const Float16Array = globalThis.Float16Array;
      if (Float16Array !== undefined) {
        const data = Float16Array.from(DX);
        const want = expected(reference(Float32Array.from(data), { shape: SHAPE }));
        close((await engine.maxsim(Q, { data, shape: SHAPE })).scores, want, 1e-4);
      }
    },
  },
  {
    name: "fp8 and int8 with one scale or one per token",
    async run({ engine }) {
      const int8 = Int8Array.from(DX, (x) => Math.round(x * 127));
      const fp8 = Uint8Array.from(DX, (x) => Math.round(Math.abs(x) * 100) | (x < 0 ? 128 : 0));
      const values = { int8: Float32Array.from(int8), fp8: Float32Array.from(fp8, fromE4m3) };
      for (const [dtype, data, tolerance] of [["int8", int8, 1e-4], ["fp8", fp8, 1e-3]]) {
        for (const scales of [[0.01], [0.01, 0.02, 0.03, 0.01, 0.5, 0.01]]) {
          const want = expected(reference(values[dtype], { shape: SHAPE, scales }));
          for (const given of [scales, Float32Array.from(scales), scales.length === 1 ? scales[0] : scales]) {
            const result = await engine.maxsim(Q, { data, shape: SHAPE, dtype, scales: given });
            close(result.scores, want, tolerance, dtype);
            // Where an array can hold one type only, dtype may be left out.
            equal((await engine.maxsim(Q, { data, shape: SHAPE, scales: given })).scores, result.scores);
          }
        }
      }
    },
  },
  {
    name: "masks of any pattern, on both sides, as bytes and as booleans",
    async run({ engine }) {
      const keep = [true, false, true, false, false, true];
      const kept = [false, true, true];
      const data = DX.slice();
      data.fill(NaN, 1 * DIM, 2 * DIM); // never used
      const want = scores(cross(query({ mask: kept }), reference(data, { shape: SHAPE, mask: keep })));
      for (const as of [(m) => m, (m) => Uint8Array.from(m, (k) => (k ? 7 : 0))]) {
        const q = { ...Q, mask: as(kept) };
        const result = await engine.maxsim(q, { data, shape: SHAPE, mask: as(keep) }, { argmax: true });
        close(result.scores, want.scores);
        equal([...result.argmax], want.argmax, "argmax");
        ok(result.argmax[0] === -1, "a masked row has no winner");
      }
    },
  },
  {
    name: "what lies past a length is not read",
    async run({ engine }) {
      const data = DX.slice();
      data.fill(NaN, 5 * DIM);
      const lengths = [3, 2];
      const want = expected(reference(data, { shape: SHAPE, lengths }));
      for (const given of [lengths, Int32Array.from(lengths), [3n, 2n]]) {
        const result = await engine.maxsim(Q, { data, shape: SHAPE, lengths: given }, { validateFinite: true });
        close(result.scores, want);
      }
    },
  },
  {
    name: "NaN never wins, and negative maxima are not floored",
    async run({ engine }) {
      const d = { data: new Float32Array([NaN, -2, -1]), shape: [3, 1] };
      const result = await engine.maxsim({ data: new Float32Array([1]), dim: 1 }, d, { argmax: true });
      equal([[...result.scores], [...result.argmax]], [[-1], [2]], "score and winner");
    },
  },
  {
    name: "empty operands give empty or zero results of the right shape",
    async run({ engine }) {
      const none = new Float32Array(0);
      const d = { data: DX, shape: SHAPE };
      for (const [q, documents, shape] of [
        [{ data: none, shape: [0, 3, DIM] }, d, [0, 2]],
        [Q, { data: none, shape: [0, 3, DIM] }, [0]],
        [{ data: none, shape: [2, 0, DIM] }, d, [2, 2]],
        [{ data: QX, shape: [1, 3, DIM] }, { data: none, shape: [4, 0, DIM] }, [1, 4]],
        [{ data: none, dim: DIM, offsets: [0] }, d, [0, 2]],
        [{ data: none, dim: DIM, offsets: [0, 0] }, d, [1, 2]],
        [{ data: QX, shape: [1, 3, DIM] }, { data: none, shape: [1, 0, 3, DIM] }, [1, 0]],
      ]) {
        const result = await engine.maxsim(q, documents);
        equal(result.shape, shape, "shape");
        equal([...result.scores], new Array(shape.reduce((n, x) => n * x, 1)).fill(0), "scores");
      }
      equal((await engine.scorePairs(Q, d, [], [])).shape, [0], "shape of no pairs");
      const hits = await engine.retrieve(Q, { data: none, shape: [0, 3, DIM] }, { topK: 5, explain: true });
      equal([hits.shape, [...hits.indices], [...hits.argmax]], [[0], [], []], "hits among no documents");
    },
  },
  {
    name: "views into larger buffers are read where they are",
    async run({ engine }) {
      const around = new Float32Array(5 + QX.length + 9).fill(NaN);
      around.set(QX, 5);
      const q = { data: around.subarray(5, 5 + QX.length), dim: DIM };
      const d = { data: DX, shape: SHAPE };
      equal((await engine.maxsim(q, d)).scores, (await engine.maxsim(Q, d)).scores, "scores");
    },
  },
  {
    name: "large inputs give what small ones give, whether copied or read in place",
    async run({ engine }) {
      const [dim, len, count] = [32, 8, 400]; // 400 KiB
      const data = vectors(13, count * len * dim);
      const q = { data: vectors(14, 4 * dim), dim };
      const all = await engine.maxsim(q, { data, shape: [count, len, dim] });
      const parts = await Promise.all(
        Array.from({ length: count }, (_, i) =>
          engine.maxsim(q, { data: data.subarray(i * len * dim, (i + 1) * len * dim), shape: [len, dim] }),
        ),
      );
      equal([...all.scores], parts.map((part) => part.scores[0]), "scores");
    },
  },
];
