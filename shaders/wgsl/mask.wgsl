// Scores that take part in no selection, turned into ABSENT, which sorts behind everything: NaN, and columns whose bit is not
// set. One invocation per score.
//
// Floor: every score read once. Limiter: memory.
#import order

struct Params {
    work: u32,    // scores
    columns: u32, // of a row
    first: u32,   // bit of the first column
    masked: u32,  // whether there are bits
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> bits: array<u32>;
@group(0) @binding(2) var<storage, read_write> scores: array<u32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = (group.x + group.y * groups.x) * 64u + local;
    if (at >= p.work) {
        return;
    }
    let bit = p.first + at % p.columns;
    var absent = (scores[at] & 0x7fffffffu) > INFINITY_BITS;
    if (p.masked != 0u && ((bits[bit / 32u] >> (bit % 32u)) & 1u) == 0u) {
        absent = true;
    }
    if (absent) {
        scores[at] = ABSENT;
    }
}
