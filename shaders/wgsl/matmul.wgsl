// Products of f32 matrices. A·Bᵀ + bias: rows of both along k; with TRANSPOSED, Aᵀ·B: columns of both along k.
//
// A workgroup computes 64 x 64 elements, an invocation 4 x 4, each one chain of fused multiply-adds over k, in runs that are
// added up. Floor: (m + n)·k elements read per 64 of the other side. Limiter: arithmetic.

struct Params {
    work: u32,      // workgroups
    columns: u32,   // workgroups along n
    m: u32,
    n: u32,
    k: u32,         // elements; whole vectors of four are read unless TRANSPOSED, zeros behind the last
    a_stride: u32,  // vectors of four elements per row
    b_stride: u32,
    c_stride: u32,  // elements per row of the result
    a_start: u32,   // first vector of A
    flags: u32,     // 1: there is a bias, 2: add to what is there
    b_start: u32,   // first vector of B
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

const TILE: u32 = 64u;
const KV: u32 = 4u;
const STRIDE: u32 = KV + 1u;
// Steps along k whose products are added up before they join the rest.
const RUN: u32 = 16u;

#if TRANSPOSED
// 16 steps along k, 16 vectors across.
var<workgroup> tile: array<vec4<f32>, 512>;
#else
var<workgroup> tile: array<vec4<f32>, 2u * TILE * STRIDE>;
#endif

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = group.x + group.y * groups.x;
    if (item >= p.work) {
        return;
    }
    let i0 = (item / p.columns) * TILE;
    let j0 = (item % p.columns) * TILE;
    let x = local % 16u;
    let y = local / 16u;
    var totals: array<vec4<f32>, 4>;
    var sums: array<vec4<f32>, 4>;
    var step = 0u;
    for (var k0 = 0u; k0 < p.k; k0 += 16u) {
        workgroupBarrier();
#if TRANSPOSED
        let k = k0 + y;
        var left = vec4<f32>();
        var right = vec4<f32>();
        if (k < p.k) {
            if (i0 / 4u + x < p.a_stride) {
                left = a[p.a_start + k * p.a_stride + i0 / 4u + x];
            }
            if (j0 / 4u + x < max(p.b_stride, 1u)) {
                right = b[p.b_start + k * p.b_stride + j0 / 4u + x];
            }
        }
        tile[local] = left;
        tile[256u + local] = right;
        workgroupBarrier();
        for (var s = 0u; s < 16u; s++) {
            let l = tile[16u * s + y];
            let r = tile[256u + 16u * s + x];
            sums[0] = fma(vec4<f32>(l.x), r, sums[0]);
            sums[1] = fma(vec4<f32>(l.y), r, sums[1]);
            sums[2] = fma(vec4<f32>(l.z), r, sums[2]);
            sums[3] = fma(vec4<f32>(l.w), r, sums[3]);
        }
#else
        let v = k0 / 4u + local % KV;
        let r = local / KV;
        var left = vec4<f32>();
        var right = vec4<f32>();
        if (4u * v < p.k) {
            if (i0 + r < p.m) {
                left = a[p.a_start + (i0 + r) * p.a_stride + v];
            }
            if (j0 + r < p.n) {
                right = b[p.b_start + (j0 + r) * p.b_stride + v];
            }
        }
        tile[r * STRIDE + local % KV] = left;
        tile[(TILE + r) * STRIDE + local % KV] = right;
        workgroupBarrier();
        for (var s = 0u; s < KV; s++) {
            var r: array<vec4<f32>, 4>;
            for (var j = 0u; j < 4u; j++) {
                r[j] = tile[(TILE + 4u * x + j) * STRIDE + s];
            }
            for (var i = 0u; i < 4u; i++) {
                let l = tile[(4u * y + i) * STRIDE + s];
                for (var j = 0u; j < 4u; j++) {
                    sums[i][j] = fma(l.w, r[j].w, fma(l.z, r[j].z, fma(l.y, r[j].y, fma(l.x, r[j].x, sums[i][j]))));
                }
            }
        }
#endif
        step++;
        if (step % RUN == 0u) {
            for (var i = 0u; i < 4u; i++) {
                totals[i] += sums[i];
                sums[i] = vec4<f32>();
            }
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let row = i0 + 4u * y + i;
        for (var j = 0u; j < 4u; j++) {
            let column = j0 + 4u * x + j;
            if (row < p.m && column < p.n) {
                let at = row * p.c_stride + column;
                var value = totals[i][j] + sums[i][j];
                if ((p.flags & 1u) != 0u) {
                    value += bias[column];
                }
                if ((p.flags & 2u) != 0u) {
                    value += c[at];
                }
                c[at] = value;
            }
        }
    }
}
