// The best of every SIZE candidates of a query, in order: a bitonic sort in workgroup memory.
//
// Candidates are a key that orders like the result and a document's index, which settles ties; what is missing sorts last.
// Floor: every score read once. Limiter: 55 rounds of exchanges in workgroup memory per 1024 scores, a few operations per
// score beside the thousands that made it.

struct Params {
    work: u32,       // queries times blocks
    blocks: u32,     // blocks of SIZE candidates of a query
    candidates: u32, // of a query
    first: u32,      // index of the first document
    largest: u32,    // whether high scores are better
    length: u32,     // candidates of a block that go on
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
// Scores (f32 bits), or with INDEXED keys.
@group(0) @binding(1) var<storage, read> candidates: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> out_keys: array<u32>;
@group(0) @binding(4) var<storage, read_write> out_indices: array<u32>;

const THREADS: u32 = SIZE / 4u;
const NONE: u32 = 0xffffffffu;

var<workgroup> keys: array<u32, SIZE>;
var<workgroup> documents: array<u32, SIZE>;

// Unsigned integers that order like scores, best first.
fn key_of(bits: u32) -> u32 {
    let ascending = select(bits ^ 0x80000000u, ~bits, bits >= 0x80000000u);
    return select(ascending, ~ascending, p.largest != 0u);
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
    let query = item / p.blocks;
    let start = (item % p.blocks) * SIZE;
    for (var i = local; i < SIZE; i += THREADS) {
        var key = NONE;
        var document = NONE;
        if (start + i < p.candidates) {
            let at = query * p.candidates + start + i;
#if INDEXED
            key = candidates[at];
            document = indices[at];
#else
            key = key_of(candidates[at]);
            document = p.first + start + i;
#endif
        }
        keys[i] = key;
        documents[i] = document;
    }
    for (var size = 2u; size <= SIZE; size *= 2u) {
        for (var step = size / 2u; step > 0u; step /= 2u) {
            workgroupBarrier();
            for (var i = local; i < SIZE / 2u; i += THREADS) {
                let low = 2u * i - (i & (step - 1u));
                let high = low + step;
                let a = keys[low];
                let b = keys[high];
                let after = a > b || (a == b && documents[low] > documents[high]);
                if (after == ((low & size) == 0u)) {
                    let document = documents[low];
                    keys[low] = b;
                    keys[high] = a;
                    documents[low] = documents[high];
                    documents[high] = document;
                }
            }
        }
    }
    workgroupBarrier();
    for (var i = local; i < p.length; i += THREADS) {
        out_keys[item * p.length + i] = keys[i];
        out_indices[item * p.length + i] = documents[i];
    }
}
