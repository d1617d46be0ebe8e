// MaxSim of a block of query rows with a segment of a document (a run of its rows; most documents are one segment).
//
// A workgroup takes BM query rows and walks through the segment BN rows at a time. Both are staged in workgroup memory, KV
// vectors of four elements of every row at a time; an invocation owns TM x TN similarities in registers, each one chain of
// fused multiply-adds over the elements in order, whatever the tile. Maxima over document rows stay in registers; they leave
// them once per segment.
//
// Floor: every document byte once per block of query rows; 2·BM·BN·d operations per tile. Limiter: with one query of 32 rows,
// arithmetic and workgroup memory (TM + TN vector loads for 4·TM·TN multiply-adds) before memory; that is why cooperative
// matrices have a kernel of their own. What subgroup operations could save is the end: of 300 document rows at d = 128, with 32
// query rows, an invocation spends 6,900 instructions on similarities and about 100 on the maxima of the others, once. Packed f16
// arithmetic would not add up in f32.
#import elements
#import maxima

@group(0) @binding(1) var<storage, read> queries: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> documents: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> d_factors: array<f32>;

const NX: u32 = BN / TN;
const NY: u32 = BM / TM;
const THREADS: u32 = NX * NY;
// A row and one vector more: neighbouring rows start in different banks.
const STRIDE: u32 = KV + 1u;
const CHUNKS: u32 = KV / PARTS;

var<workgroup> tile: array<vec4<u32>, max((BM + BN) * STRIDE, THREADS * 2u)>;

#if ELEMENT == I8_DOT
alias Sum = i32;
fn chain(a: vec4<u32>, b: vec4<u32>, sum: i32) -> i32 {
    return sum + dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}
#else
alias Sum = f32;
fn chain(a: vec4<u32>, b: vec4<u32>, sum: f32) -> f32 {
    let x = bitcast<vec4<f32>>(a);
    let y = bitcast<vec4<f32>>(b);
    return fma(x.w, y.w, fma(x.z, y.z, fma(x.y, y.y, fma(x.x, y.x, sum))));
}
#endif

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = group.x + group.y * groups.x;
    if (item >= p.work) {
        return;
    }
    let work = work_of(item);
    if (work.seg == ABSENT) {
        return;
    }
    let first_row = work.first_row;
    let rows = work.rows;
    let start = work.start;
    let length = work.length;
    let x = local % NX;
    let y = local / NX;

    var best: array<i32, TM>;
    var index: array<u32, TM>;
    for (var i = 0u; i < TM; i++) {
        best[i] = NO_WINNER;
        index[i] = 0u;
    }
    for (var t0 = 0u; t0 < length; t0 += BN) {
        var sums: array<array<Sum, TN>, TM>;
        // As the declaration means already; SwiftShader leaves the sums of the tile before in place.
        for (var i = 0u; i < TM; i++) {
            for (var j = 0u; j < TN; j++) {
                sums[i][j] = Sum();
            }
        }
        for (var c0 = 0u; c0 < p.d_stride; c0 += CHUNKS) {
            workgroupBarrier();
            for (var i = local; i < BM * KV; i += THREADS) {
                let row = i / KV;
                let k = i % KV;
                var words = vec4<u32>();
                // Query rows are padded to whole chunks of every element type.
                if (row < rows && c0 * PARTS + k < p.q_stride) {
                    words = queries[(first_row + row) * p.q_stride + c0 * PARTS + k];
                }
                tile[row * STRIDE + k] = words;
            }
            for (var i = local; i < BN * CHUNKS; i += THREADS) {
                let row = i / CHUNKS;
                let c = i % CHUNKS;
                var words = vec4<u32>();
                if (t0 + row < length && c0 + c < p.d_stride) {
                    words = documents[(start + t0 + row) * p.d_stride + c0 + c];
                }
                let to = (BM + row) * STRIDE + c * PARTS;
#if PARTS == 1
                tile[to] = words;
#else
                for (var part = 0u; part < PARTS; part++) {
                    tile[to + part] = bitcast<vec4<u32>>(decode(words, part));
                }
#endif
            }
            workgroupBarrier();
            for (var k = 0u; k < KV; k++) {
                var b: array<vec4<u32>, TN>;
                for (var j = 0u; j < TN; j++) {
                    b[j] = tile[(BM + x + j * NX) * STRIDE + k];
                }
                for (var i = 0u; i < TM; i++) {
                    let a = tile[(y * TM + i) * STRIDE + k];
                    for (var j = 0u; j < TN; j++) {
                        sums[i][j] = chain(a, b[j], sums[i][j]);
                    }
                }
            }
        }
        // Rows of an invocation come in ascending order, so that the first of equals stays.
        for (var j = 0u; j < TN; j++) {
            let t = t0 + x + j * NX;
            if (t < length) {
                var factor = 1.0;
                if ((p.flags & D_FACTORS) != 0u) {
                    factor = d_factors[start + t];
                }
                for (var i = 0u; i < TM; i++) {
                    let key = key_of(f32(sums[i][j]) * factor);
#if ARGMAX
                    index[i] = select(index[i], t, key > best[i]);
#endif
                    best[i] = max(best[i], key);
                }
            }
        }
    }

    settle(work, &best, &index, local);
}
