// Centroids of a search's allowed documents: a bit each. One workgroup per document.
//
// Floor: every code of the documents once. Limiter: memory.

struct Params {
    work: u32,      // documents of the shard
    first: u32,     // number of the first of them
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
// First row and rows of every document, in four words.
@group(0) @binding(2) var<storage, read> d_meta: array<u32>;
@group(0) @binding(3) var<storage, read> allowed: array<u32>;
@group(0) @binding(4) var<storage, read_write> eligible: array<atomic<u32>>;

@compute @workgroup_size(32)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = group.x + group.y * groups.x;
    if (item >= p.work) {
        return;
    }
    let document = p.first + item;
    if (((allowed[document / 32u] >> (document % 32u)) & 1u) == 0u) {
        return;
    }
    let start = d_meta[4u * item];
    let rows = d_meta[4u * item + 1u];
    for (var t = local; t < rows; t += 32u) {
        let code = codes[start + t];
        atomicOr(&eligible[code / 32u], 1u << (code % 32u));
    }
}
