// Keys by which documents that were scored well are sorted. What was not chosen stays ABSENT. One invocation per document.
//
// Floor: a score and a key each. Limiter: latency; there are few.
#import order

struct Params {
    work: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> scores: array<u32>;
@group(0) @binding(2) var<storage, read_write> keys: array<u32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = (group.x + group.y * groups.x) * 64u + local;
    if (at >= p.work || keys[at] == ABSENT) {
        return;
    }
    // Descending scores, as `topk_sort` orders them.
    let bits = scores[at];
    keys[at] = select(bits ^ 0x7fffffffu, bits, bits >= 0x80000000u);
}
