// MaxSim of a block of query rows with a segment of a document, both f16, by cooperative matrices with f32 sums.
//
// SM x SN subgroups share a block of BM query rows and BN document rows; each owns WM x WN matrices of EXTENT x EXTENT similarities and
// loads its operands straight from memory: rows are padded to whole matrices, and what is read behind a block or a segment
// only reaches similarities that are dropped. The sums over the elements are the hardware's, in steps of EXTENT elements; the
// order depends on the dimension alone. Similarities then pass through workgroup memory once, where each invocation reads
// one row of every matrix of its subgroup.
//
// Floor: every document byte once per block of query rows, or 2·BM·BN·d operations at the matrix units' rate. Limiter: loads
// of operands, (WM + WN) matrices for WM·WN products; then the pass through workgroup memory, 8 bytes per similarity.
#import scoring

@group(0) @binding(1) var<storage, read> queries: array<f16>;
@group(0) @binding(2) var<storage, read> documents: array<f16>;
@group(0) @binding(6) var<storage, read> d_factors: array<f32>;

const WM: u32 = 2u;
const WN: u32 = 2u;
const BN: u32 = SN * WN * EXTENT;
const THREADS: u32 = SM * SN * LANES;
// Rows of a stored matrix begin in different banks.
const STEP: u32 = EXTENT + 4u;
// Invocations that share a row of a matrix.
const PARTS: u32 = LANES / EXTENT;
const SHARE: u32 = SN * PARTS;

#if EXTENT == 16
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
#else
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;
#endif

var<workgroup> similarities: array<f32, SM * SN * WM * WN * EXTENT * STEP>;
var<workgroup> keys: array<i32, BM * SHARE>;
#if ARGMAX
var<workgroup> indices: array<u32, BM * SHARE>;
#endif

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let item = group.x + group.y * groups.x;
    if (item >= p.work) {
        return;
    }
    // Lists that are made on the device, with pairs that are none, are of residual documents.
    let work = work_of(item);
    let row0 = (subgroup / SN) * WM * EXTENT;
    let column0 = (subgroup % SN) * WN * EXTENT;
    let q_width = p.q_stride * 8u;
    let d_width = p.d_stride * 8u;
    let mine = subgroup * WM * WN * EXTENT * STEP;
    let row = lane % EXTENT;
    let part = lane / EXTENT;

    var best: array<i32, WM>;
    var index: array<u32, WM>;
    for (var i = 0u; i < WM; i++) {
        best[i] = NO_WINNER;
        index[i] = 0u;
    }
    for (var t0 = 0u; t0 < work.length; t0 += BN) {
        var s00 = Sums();
        var s01 = Sums();
        var s10 = Sums();
        var s11 = Sums();
        for (var k = 0u; k < d_width; k += EXTENT) {
            let a0 = coopLoadT<Left>(&queries[(work.first_row + row0) * q_width + k], q_width);
            let a1 = coopLoadT<Left>(&queries[(work.first_row + row0 + EXTENT) * q_width + k], q_width);
            let b0 = coopLoad<Right>(&documents[(work.start + t0 + column0) * d_width + k], d_width);
            let b1 = coopLoad<Right>(&documents[(work.start + t0 + column0 + EXTENT) * d_width + k], d_width);
            s00 = coopMultiplyAdd(a0, b0, s00);
            s01 = coopMultiplyAdd(a0, b1, s01);
            s10 = coopMultiplyAdd(a1, b0, s10);
            s11 = coopMultiplyAdd(a1, b1, s11);
        }
        workgroupBarrier();
        coopStoreT(s00, &similarities[mine], STEP);
        coopStoreT(s01, &similarities[mine + EXTENT * STEP], STEP);
        coopStoreT(s10, &similarities[mine + 2u * EXTENT * STEP], STEP);
        coopStoreT(s11, &similarities[mine + 3u * EXTENT * STEP], STEP);
        workgroupBarrier();
        // An invocation meets document rows in ascending order, so that the first of equals stays.
        for (var j = 0u; j < WN; j++) {
            for (var c = part; c < EXTENT; c += PARTS) {
                let t = t0 + column0 + j * EXTENT + c;
                if (t < work.length) {
                    var factor = 1.0;
                    if ((p.flags & D_FACTORS) != 0u) {
                        factor = d_factors[work.start + t];
                    }
                    for (var i = 0u; i < WM; i++) {
                        let key = key_of(similarities[mine + ((i * WN + j) * EXTENT + row) * STEP + c] * factor);
                        index[i] = select(index[i], t, key > best[i]);
                        best[i] = max(best[i], key);
                    }
                }
            }
        }
    }

    // Across the invocations that share rows.
    for (var i = 0u; i < WM; i++) {
        let to = (row0 + i * EXTENT + row) * SHARE + (subgroup % SN) * PARTS + part;
        keys[to] = best[i];
#if ARGMAX
        indices[to] = index[i];
#endif
    }
    workgroupBarrier();
    for (var r = local; r < BM; r += THREADS) {
        var key = NO_WINNER;
        var winner = 0u;
        for (var other = r * SHARE; other < (r + 1u) * SHARE; other++) {
#if ARGMAX
            if (keys[other] > key || (keys[other] == key && indices[other] < winner)) {
                winner = indices[other];
            }
#endif
            key = max(key, keys[other]);
        }
        leave(work, r, key, winner);
    }
    workgroupBarrier();
    add_up(work, local);
}
