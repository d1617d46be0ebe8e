// What the kernels that meet documents share: where their work is, and what they leave behind. They define BM, the rows of a
// block of queries, and THREADS.
#import order

struct Params {
    work: u32,      // workgroups that have something to do
    blocks: u32,    // blocks of query rows of this dispatch
    q_stride: u32,  // 16-byte vectors per query row
    d_stride: u32,  // 16-byte vectors per document row, as f32 for residual documents
    rows: u32,      // query rows of the pass
    row0: u32,      // the first of them
    query0: u32,    // the first query of the pass
    documents: u32, // documents of the pass
    doc0: u32,      // the first of them
    seg0: u32,      // the first segment of this dispatch
    seg_base: u32,  // segments of the pass before it
    offsets_at: u32, // where q_meta holds the first row of every query
    items_at: u32,  // where q_meta holds the pairs of a list
    ids_at: u32,    // where d_meta holds the document-local index of every row, or 0
    flags: u32,     // of Q_FACTORS, …
    block0: u32,    // the first of the blocks
    // Of residual documents:
    dim: u32,       // elements per row
    weights_at: u32, // where q_meta holds the weights of buckets
    table_row0: u32, // the first query row of the table
    table_stride: u32, // query rows of the table
}

// Flags. They are the same for all invocations, and testing them costs nothing beside a tile: fewer variants to compile.
const Q_FACTORS: u32 = 1u; // query rows have factors
const D_FACTORS: u32 = 2u; // document rows have factors
const LIST: u32 = 4u;      // pairs are listed, not a cross product
const MAXIMA: u32 = 8u;    // leave maxima per row, which `forward_sum` adds up

@group(0) @binding(0) var<uniform> p: Params;
// Blocks (first row, rows, first query, queries), first rows of queries, weights of buckets, pairs (block, segment, score, first maximum).
@group(0) @binding(3) var<storage, read> q_meta: array<u32>;
// Segments (first row, rows, document, document-local index of the first row), local indices.
@group(0) @binding(4) var<storage, read> d_meta: array<u32>;
@group(0) @binding(5) var<storage, read> q_factors: array<f32>;
@group(0) @binding(7) var<storage, read_write> values: array<u32>;
@group(0) @binding(8) var<storage, read_write> winners: array<i32>;

var<workgroup> contributions: array<f32, BM>;

struct Work {
    at: u32,        // of a listed pair in q_meta
    block: u32,
    seg: u32,
    first_row: u32, // of the block
    rows: u32,
    start: u32,     // of the segment
    length: u32,
}

// Its segment is ABSENT for a pair that was made on the device and is none, or is another shard's.
fn work_of(item: u32) -> Work {
    let at = select(0u, p.items_at + 4u * item, (p.flags & LIST) != 0u);
    let block = select(p.block0 + item % p.blocks, q_meta[at], (p.flags & LIST) != 0u);
    let seg = select(p.seg0 + item / p.blocks, q_meta[at + 1u], (p.flags & LIST) != 0u);
    let there = select(seg, 0u, seg == ABSENT);
    let segment = vec2<u32>(d_meta[4u * there], d_meta[4u * there + 1u]);
    return Work(at, block, seg, q_meta[4u * block], q_meta[4u * block + 1u], segment.x, segment.y);
}

// Row `row` of the block has the maximum `key`, at row `winner` of the segment.
fn leave(work: Work, row: u32, key: i32, winner: u32) {
    let maxima = (p.flags & MAXIMA) != 0u;
    var contribution = 0.0;
    var won = key > NO_WINNER;
    if (won && !maxima) {
        contribution = value_of(key);
        if ((p.flags & Q_FACTORS) != 0u && row < work.rows) {
            contribution *= q_factors[work.first_row + row];
        }
        // inf · 0 and a factor of NaN: tokens of infinite or no norm, whose similarities are all NaN.
        won = !is_nan(contribution);
        contribution = select(0.0, contribution, won);
    }
    contributions[row] = contribution;
    if (row >= work.rows) {
        return;
    }
    var place = work.first_row + row - p.row0;
    if ((p.flags & LIST) != 0u) {
        place = q_meta[work.at + 3u] + row;
    } else if (maxima) {
        place += (p.seg_base + work.seg - p.seg0) * p.rows;
    } else {
        place += (d_meta[4u * work.seg + 2u] - p.doc0) * p.rows;
    }
    if (maxima) {
        values[place] = bitcast<u32>(key);
    }
#if ARGMAX
    var slot = -1;
    if (won) {
        slot = i32(d_meta[4u * work.seg + 3u] + winner);
        if (p.ids_at != 0u) {
            slot = i32(d_meta[p.ids_at + work.start + winner]);
        }
    }
    winners[place] = slot;
#endif
}

// Scores of the block's queries, once every row was left and a barrier passed.
fn add_up(work: Work, local: u32) {
    if ((p.flags & MAXIMA) != 0u) {
        return;
    }
    for (var i = local; i < q_meta[4u * work.block + 3u]; i += THREADS) {
        let query = q_meta[4u * work.block + 2u] + i;
        let origin = q_meta[p.offsets_at + query] - work.first_row;
        let to = q_meta[p.offsets_at + query + 1u] - work.first_row;
        var score = 0.0;
        for (var row = origin; row < to; row += GROUP) {
            var sum = 0.0;
            for (var r = row; r < min(row + GROUP, to); r++) {
                sum += contributions[r];
            }
            score += sum;
        }
        var place = (query - p.query0) * p.documents + d_meta[4u * work.seg + 2u] - p.doc0;
        if ((p.flags & LIST) != 0u) {
            place = q_meta[work.at + 2u];
        }
        values[place] = bitcast<u32>(score);
    }
}
