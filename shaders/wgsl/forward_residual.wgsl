// MaxSim of a block of query rows with a segment of a residual document. A similarity is a look-up in a table of query rows with
// centroids, which a product of matrices made, plus the product with the token's weights, which are never written anywhere.
//
// An invocation owns four tokens and TM query rows, 4·TM sums in registers, each one chain of fused multiply-adds that begins with
// what the table says. Vectors hold a number of each token; rows have names, so that no compiler has to unroll anything. It reads
// its tokens' packed words itself and turns half a byte at a time into weights by a table in workgroup memory: sixteen entries, so
// that no two of them share a bank. Query rows are staged in workgroup memory, where the invocations that share rows read the same
// vector at once. Tokens' words need no staging: nobody else wants them but the invocations of other rows, which are few and find
// them in the cache.
//
// Floor: 2·BM·d operations per token, BM of them f32 read from the table, 8 bytes and d·BITS bits from memory: 10,000 documents
// of 300 tokens at 2 bits are 24.6 GFLOP, 0.4 GB from the cache that holds the table and 0.12 GB from memory for a query of 32
// rows. Limiter: arithmetic. Of four elements, 16·TM multiply-adds come with TM vectors of query rows and, at 2 bits, eight
// look-ups with two operations each before them: 256 with 40. Adding centroids while decoding instead would read 4·d bytes of
// every token from a cache, four times what the table asks for with 32 rows, and scattered.
#import maxima

@group(0) @binding(1) var<storage, read> queries: array<vec4<u32>>;
// Rows of the centroid's number, the inverse norm and packed buckets, lowest bits first.
@group(0) @binding(2) var<storage, read> documents: array<u32>;
// [centroids][query rows]
@group(0) @binding(6) var<storage, read> table: array<vec4<f32>>;

const NX: u32 = BN / 4u;
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

// Up to four similarities of a centroid, from where the table has them.
fn similarities(at: u32, rows: u32, aligned: bool) -> vec4<f32> {
    var found = vec4<f32>();
    if (rows > 0u && aligned) {
        found = table[at / 4u];
    } else {
        for (var r = 0u; r < min(rows, 4u); r++) {
            found[r] = table[(at + r) / 4u][(at + r) % 4u];
        }
    }
    return found;
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
    let length = work.length;
    let x = local % NX;
    let y = local / NX;
    let words = (p.dim * BITS + 31u) / 32u;
    // Where the invocation's rows are in a row of the table, how many there are, and whether they are whole vectors of it.
    let column = work.first_row - p.table_row0 + y * TM;
    let rows = work.rows - min(work.rows, y * TM);
    let aligned = (column | p.table_stride) % 4u == 0u;

    for (var i = local; i < ENTRIES; i += THREADS) {
        decoded[i] = entry(i);
    }
#for g QUADS
#for r 4
    var best@g_@r = NO_WINNER;
    var index@g_@r = 0u;
#endfor
#endfor
    for (var t0 = 0u; t0 < length; t0 += BN) {
        let t = vec4<u32>(t0 + x) + vec4<u32>(0u, NX, 2u * NX, 3u * NX);
        // What is behind the last token is that token once more, and dropped.
        let at = (vec4<u32>(work.start) + min(t, vec4<u32>(length - 1u))) * (words + 2u);
        let codes = vec4<u32>(documents[at.x], documents[at.y], documents[at.z], documents[at.w]);
        let starts = codes * p.table_stride + vec4<u32>(column);
#for g QUADS
        let rows@g = rows - min(rows, 4u * @gu);
        let x@g = similarities(starts.x + 4u * @gu, rows@g, aligned);
        let y@g = similarities(starts.y + 4u * @gu, rows@g, aligned);
        let z@g = similarities(starts.z + 4u * @gu, rows@g, aligned);
        let w@g = similarities(starts.w + 4u * @gu, rows@g, aligned);
#for r 4
        var sums@g_@r = vec4<f32>(x@g[@ru], y@g[@ru], z@g[@ru], w@g[@ru]);
#endfor
#endfor
        for (var c0 = 0u; c0 < p.d_stride; c0 += KV) {
            workgroupBarrier();
            for (var i = local; i < BM * KV; i += THREADS) {
                let row = i / KV;
                let k = i % KV;
                var vector = vec4<u32>();
                if (row < work.rows && c0 + k < p.q_stride) {
                    vector = queries[(work.first_row + row) * p.q_stride + c0 + k];
                }
                tile[k * COLUMN + row + row / TM] = vector;
            }
            workgroupBarrier();
            for (var w = 0u; w < WORDS; w++) {
                let bit = (c0 + w * PER_WORD) * 4u * BITS;
                let word = vec4<u32>(2u + min(bit / 32u, words - 1u)) + at;
                var buckets =
                    vec4<u32>(documents[word.x], documents[word.y], documents[word.z], documents[word.w]);
                buckets = buckets >> vec4<u32>(bit % 32u);
                for (var v = 0u; v < PER_WORD; v++) {
                    let here = buckets >> vec4<u32>(4u * BITS * v);
                    let d0 = weights(here.x);
                    let d1 = weights(here.y);
                    let d2 = weights(here.z);
                    let d3 = weights(here.w);
                    var b0 = vec4<f32>(d0.x, d1.x, d2.x, d3.x);
                    var b1 = vec4<f32>(d0.y, d1.y, d2.y, d3.y);
                    var b2 = vec4<f32>(d0.z, d1.z, d2.z, d3.z);
                    var b3 = vec4<f32>(d0.w, d1.w, d2.w, d3.w);
                    // Behind the last element are buckets, but no weights: one may be infinite.
                    let part = w * PER_WORD + v;
                    let k = 4u * (c0 + part);
                    if (k + 4u > p.dim) {
                        b0 = select(vec4<f32>(), b0, k < p.dim);
                        b1 = select(vec4<f32>(), b1, k + 1u < p.dim);
                        b2 = select(vec4<f32>(), b2, k + 2u < p.dim);
                        b3 = vec4<f32>();
                    }
                    let origin = part * COLUMN + y * (TM + 1u);
#for g QUADS
#for r 4
                    let a@g_@r = bitcast<vec4<f32>>(tile[origin + 4u * @gu + @ru]);
                    sums@g_@r = fma(vec4<f32>(a@g_@r.x), b0, sums@g_@r);
                    sums@g_@r = fma(vec4<f32>(a@g_@r.y), b1, sums@g_@r);
                    sums@g_@r = fma(vec4<f32>(a@g_@r.z), b2, sums@g_@r);
                    sums@g_@r = fma(vec4<f32>(a@g_@r.w), b3, sums@g_@r);
#endfor
#endfor
                }
            }
        }
        // Tokens of an invocation come in ascending order, so that the first of equals stays.
#for j 4
        if (t[@ju] < length) {
            var factor = 1.0;
            if ((p.flags & D_FACTORS) != 0u) {
                factor = bitcast<f32>(documents[at[@ju] + 1u]);
            }
#for g QUADS
#for r 4
            let key@g_@r = key_of(sums@g_@r[@ju] * factor);
#if ARGMAX
            index@g_@r = select(index@g_@r, t[@ju], key@g_@r > best@g_@r);
#endif
            best@g_@r = max(best@g_@r, key@g_@r);
#endfor
#endfor
        }
#endfor
    }
    var best: array<i32, TM>;
    var index: array<u32, TM>;
#for g QUADS
#for r 4
    best[4u * @gu + @ru] = best@g_@r;
    index[4u * @gu + @ru] = index@g_@r;
#endfor
#endfor
    settle(work, &best, &index, local);
}
