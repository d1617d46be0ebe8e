// MaxSim of a block of query rows with a segment of a residual document. A similarity is a look-up in a table of query rows with
// centroids, which a product of matrices made, plus the product with the token's weights, which are never written anywhere.
//
// An invocation owns TN tokens and TM query rows, TN·TM sums in registers, each one chain of fused multiply-adds that begins with
// what the table says. It reads its tokens' packed words itself and turns half a byte at a time into weights by a table in
// workgroup memory: sixteen entries, so that no two of them share a bank. Query rows are staged in workgroup memory, where the
// invocations that share rows read the same vector at once. Tokens' words need no staging: nobody else wants them but the
// invocations of other rows, which are few and find them in the cache.
//
// Floor: 2·BM·d operations per token, BM of them f32 read from the table, 8 bytes and d·BITS bits from memory: 10,000 documents
// of 300 tokens at 2 bits are 24.6 GFLOP, 0.4 GB from the cache that holds the table and 0.12 GB from memory for a query of 32
// rows. Limiter: arithmetic. Of four elements, 4·TM·TN multiply-adds come with TM vectors of query rows and, at 2 bits, 2·TN
// look-ups with two operations each before them: 256 with 40. Adding centroids while decoding instead would read 4·d bytes of
// every token from a cache, thirty times what the table asks for with 32 rows.
#import maxima

@group(0) @binding(1) var<storage, read> queries: array<vec4<u32>>;
// Rows of the centroid's number, the inverse norm and packed buckets, lowest bits first.
@group(0) @binding(2) var<storage, read> documents: array<u32>;
// [centroids][query rows]
@group(0) @binding(6) var<storage, read> table: array<vec4<f32>>;

const NX: u32 = BN / TN;
const NY: u32 = BM / TM;
const THREADS: u32 = NX * NY;
// Vectors of four elements that a word of buckets holds, of those that are staged together, and words of these.
const WORDS: u32 = max(KV * BITS / 8u, 1u);
const PER_WORD: u32 = KV / WORDS;
// Staged rows by vector; one more per group of invocations, so that groups read from different banks.
const COLUMN: u32 = BM + NY;

var<workgroup> tile: array<vec4<u32>, max(KV * COLUMN, THREADS * 2u)>;

// `weights`: of the four elements whose buckets are the lowest bits.
#if BITS == 1
const ENTRIES: u32 = 16u;
var<workgroup> decoded: array<vec4<f32>, ENTRIES>;
fn entry(i: u32) -> vec4<f32> {
    return vec4<f32>(weight(i & 1u), weight((i >> 1u) & 1u), weight((i >> 2u) & 1u), weight(i >> 3u));
}
fn weights(buckets: u32) -> vec4<f32> {
    return decoded[buckets & 15u];
}
#endif
#if BITS == 2
const ENTRIES: u32 = 16u;
var<workgroup> decoded: array<vec2<f32>, ENTRIES>;
fn entry(i: u32) -> vec2<f32> {
    return vec2<f32>(weight(i & 3u), weight(i >> 2u));
}
fn weights(buckets: u32) -> vec4<f32> {
    return vec4<f32>(decoded[buckets & 15u], decoded[(buckets >> 4u) & 15u]);
}
#endif
#if BITS == 4
const ENTRIES: u32 = 16u;
#endif
#if BITS == 8
const ENTRIES: u32 = 256u;
#endif
#if WIDE
var<workgroup> decoded: array<f32, ENTRIES>;
fn entry(i: u32) -> f32 {
    return weight(i);
}
fn weights(buckets: u32) -> vec4<f32> {
    let at = (vec4<u32>(buckets) >> (vec4<u32>(0u, 1u, 2u, 3u) * BITS)) & vec4<u32>(ENTRIES - 1u);
    return vec4<f32>(decoded[at.x], decoded[at.y], decoded[at.z], decoded[at.w]);
}
#endif

fn weight(bucket: u32) -> f32 {
    return bitcast<f32>(q_meta[p.weights_at + bucket]);
}

fn chain(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

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
    // A listed pair may be none, or its rows may be in another table.
    if (work.seg == ABSENT || work.block - p.block0 >= p.blocks) {
        return;
    }
    let first_row = work.first_row;
    let rows = work.rows;
    let length = work.length;
    let x = local % NX;
    let y = local / NX;
    let words = (p.dim * BITS + 31u) / 32u;
    // Where the block's rows are in a row of the table, and whether they are whole vectors of it.
    let column = first_row - p.table_row0;
    let aligned = (column | p.table_stride) % 4u == 0u;

    for (var i = local; i < ENTRIES; i += THREADS) {
        decoded[i] = entry(i);
    }
    var best: array<i32, TM>;
    var index: array<u32, TM>;
    for (var i = 0u; i < TM; i++) {
        best[i] = NO_WINNER;
        index[i] = 0u;
    }
    for (var t0 = 0u; t0 < length; t0 += BN) {
        var at: array<u32, TN>;
        var sums: array<array<f32, TN>, TM>;
        for (var j = 0u; j < TN; j++) {
            // What is behind the last token is that token once more, and dropped.
            at[j] = (work.start + min(t0 + x + j * NX, length - 1u)) * (words + 2u);
            let origin = documents[at[j]] * p.table_stride + column + y * TM;
            for (var i = 0u; i < TM; i += 4u) {
                var part = vec4<f32>();
                if (y * TM + i < rows) {
                    if (aligned) {
                        part = table[(origin + i) / 4u];
                    } else {
                        for (var r = 0u; r < min(4u, rows - y * TM - i); r++) {
                            part[r] = table[(origin + i + r) / 4u][(origin + i + r) % 4u];
                        }
                    }
                }
                sums[i][j] = part.x;
                sums[i + 1u][j] = part.y;
                sums[i + 2u][j] = part.z;
                sums[i + 3u][j] = part.w;
            }
        }
        for (var c0 = 0u; c0 < p.d_stride; c0 += KV) {
            workgroupBarrier();
            for (var i = local; i < BM * KV; i += THREADS) {
                let row = i / KV;
                let k = i % KV;
                var vector = vec4<u32>();
                if (row < rows && c0 + k < p.q_stride) {
                    vector = queries[(first_row + row) * p.q_stride + c0 + k];
                }
                tile[k * COLUMN + row + row / TM] = vector;
            }
            workgroupBarrier();
            for (var w = 0u; w < WORDS; w++) {
                let bit = (c0 + w * PER_WORD) * 4u * BITS;
                var buckets: array<u32, TN>;
                for (var j = 0u; j < TN; j++) {
                    buckets[j] = documents[at[j] + 2u + min(bit / 32u, words - 1u)] >> (bit % 32u);
                }
                for (var v = 0u; v < PER_WORD; v++) {
                    let part = w * PER_WORD + v;
                    var b: array<vec4<f32>, TN>;
                    for (var j = 0u; j < TN; j++) {
                        b[j] = weights(buckets[j] >> (4u * BITS * v));
                    }
                    // Behind the last element are buckets, but no weights: one may be infinite.
                    let k = 4u * (c0 + part);
                    if (k + 4u > p.dim) {
                        for (var j = 0u; j < TN; j++) {
                            b[j] = select(vec4<f32>(), b[j], vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.dim));
                        }
                    }
                    for (var i = 0u; i < TM; i++) {
                        let a = bitcast<vec4<f32>>(tile[part * COLUMN + y * (TM + 1u) + i]);
                        for (var j = 0u; j < TN; j++) {
                            sums[i][j] = chain(a, b[j], sums[i][j]);
                        }
                    }
                }
            }
        }
        // Tokens of an invocation come in ascending order, so that the first of equals stays.
        for (var j = 0u; j < TN; j++) {
            let t = t0 + x + j * NX;
            if (t < length) {
                var factor = 1.0;
                if ((p.flags & D_FACTORS) != 0u) {
                    factor = bitcast<f32>(documents[at[j] + 1u]);
                }
                for (var i = 0u; i < TM; i++) {
                    let key = key_of(sums[i][j] * factor);
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
