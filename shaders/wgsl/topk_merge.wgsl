// Pairs of sorted runs merged, the best kept: one invocation per candidate, which finds its rank in the other run by binary
// search. A last run without a partner is copied; runs that end early are filled up with what is missing.
//
// Floor: every candidate read and written once. Limiter: the latency of the search, about 20 dependent loads.

struct Params {
    work: u32,       // queries times pairs times invocations of a pair
    pairs: u32,      // of runs of a query, the last maybe with one run
    runs: u32,       // of a query
    length: u32,     // candidates of a run
    each: u32,       // invocations of a pair: as many as candidates come in or go out, whatever is more
    out_length: u32, // candidates of a merged run
    out_stride: u32, // distance of queries in the output
    out_start: u32,  // where a query's first run begins in it
    in_stride: u32,  // distance of queries in the input
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> out_keys: array<u32>;
@group(0) @binding(4) var<storage, read_write> out_indices: array<u32>;

const NONE: u32 = 0xffffffffu;

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
    let element = at % p.each;
    let pair = at / p.each % p.pairs;
    let query = at / p.each / p.pairs;
    let second = element >= p.length;
    let run = 2u * pair + u32(second);
    var rank = element;
    var key = NONE;
    var document = NONE;
    if (run < p.runs && element < 2u * p.length) {
        let own = query * p.in_stride + run * p.length + select(element, element - p.length, second);
        key = keys[own];
        document = indices[own];
        rank = select(element, element - p.length, second);
        if ((run ^ 1u) < p.runs) {
            let other = query * p.in_stride + (run ^ 1u) * p.length;
            var low = 0u;
            var high = p.length;
            while (low < high) {
                let middle = (low + high) / 2u;
                let its = keys[other + middle];
                let its_document = indices[other + middle];
                // What is missing is equal everywhere: the first run's come first.
                let same = its == key && its_document == document;
                if (its < key || (its == key && its_document < document) || (same && second)) {
                    low = middle + 1u;
                } else {
                    high = middle;
                }
            }
            rank += low;
        }
    }
    if (rank < p.out_length) {
        let to = query * p.out_stride + p.out_start + pair * p.out_length + rank;
        out_keys[to] = key;
        out_indices[to] = document;
    }
}
