// Gradients of normalised rows to gradients of the rows: (g - <g, x̂> x̂) / |x|, and 0 where |x| < 1e-6. A workgroup per row.
//
// Floor: row and gradient read once, the gradient written. Limiter: memory.
#import elements

struct Params {
    work: u32,    // rows of `grads`
    stride: u32,  // 16-byte vectors per row of `rows`
    width: u32,   // vectors of four elements per gradient
    dim: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> rows: array<vec4<u32>>;
// 1 / max(|x|, 1e-6)
@group(0) @binding(2) var<storage, read> factors: array<f32>;
// The row of every gradient.
@group(0) @binding(3) var<storage, read> row_of: array<u32>;
@group(0) @binding(4) var<storage, read_write> grads: array<vec4<f32>>;

const LANES: u32 = 64u;
var<workgroup> partial: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = group.x + group.y * groups.x;
    if (item >= p.work) {
        return;
    }
    let row = row_of[item];
    let factor = factors[row];
    // A row of one element is ±1 once it is normalised, whatever it was; so is a short one's factor, whatever its length.
    let flat = p.dim == 1u || factor > 999999.0;
    // What rounding leaves along the row after the first time, the second takes away.
    for (var time = 0u; time < 2u; time++) {
        var sum = 0.0;
        for (var v = local; v < p.width; v += LANES) {
            let unit = decode(rows[row * p.stride + v / PARTS], v % PARTS) * factor;
            sum += dot(unit, grads[item * p.width + v]);
        }
        partial[local] = sum;
        workgroupBarrier();
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            if (local < half) {
                partial[local] += partial[local + half];
            }
            workgroupBarrier();
        }
        let along = partial[0];
        workgroupBarrier();
        for (var v = local; v < p.width; v += LANES) {
            let unit = decode(rows[row * p.stride + v / PARTS], v % PARTS) * factor;
            var grad = grads[item * p.width + v] - along * unit;
            if (time == 1u) {
                grad = select(grad * factor, vec4<f32>(), flat);
            }
            grads[item * p.width + v] = grad;
        }
    }
}
