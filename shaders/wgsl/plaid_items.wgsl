// The documents that a selection left, as pairs for `forward`: one invocation per query and document.
//
// Floor: what is written. Limiter: latency; there are few.
#import order

struct Params {
    work: u32,       // queries times documents of a query
    width: u32,      // documents of a query
    first: u32,      // number of the shard's first document
    documents: u32,  // of the shard
    blocks_at: u32,  // where `meta` holds the first block of every query and the end
    items_at: u32,   // where it holds the shard's pairs
    offsets_at: u32, // where it holds the first row of every query and the end
    records: u32,    // whether `forward_sum` adds up
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;
@group(0) @binding(2) var<storage, read> chosen: array<u32>;
// As `forward` reads it.
@group(0) @binding(3) var<storage, read_write> q_meta: array<u32>;
// As `forward_sum` reads them.
@group(0) @binding(4) var<storage, read_write> pairs: array<u32>;

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
    let query = at / p.width;
    let i = at % p.width;
    var segment = ABSENT;
    if (keys[at] != ABSENT && chosen[at] >= p.first && chosen[at] - p.first < p.documents) {
        segment = chosen[at] - p.first;
    }
    let block = q_meta[p.blocks_at + query];
    let blocks = q_meta[p.blocks_at + query + 1u] - block;
    let row = q_meta[p.offsets_at + query];
    let rows = q_meta[p.offsets_at + query + 1u] - row;
    let maximum = p.width * row + i * rows;
    for (var b = 0u; b < blocks; b++) {
        let to = p.items_at + 4u * (p.width * block + i * blocks + b);
        q_meta[to] = block + b;
        q_meta[to + 1u] = segment;
        q_meta[to + 2u] = at;
        q_meta[to + 3u] = maximum + q_meta[4u * (block + b)] - row;
    }
    if (p.records != 0u) {
        pairs[8u * at] = maximum;
        pairs[8u * at + 1u] = rows;
        pairs[8u * at + 2u] = 1u;
        pairs[8u * at + 3u] = row;
        pairs[8u * at + 4u] = rows;
        pairs[8u * at + 5u] = at;
        pairs[8u * at + 6u] = 0u;
        pairs[8u * at + 7u] = 0u;
    }
}
