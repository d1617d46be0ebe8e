// What the scoring kernels are given. Mirrored in Rust (`maxsim-cuda`, `params.rs`), which asserts the sizes.
//
// Queries and documents are packed: rows behind one another, tokens that no mask or length keeps left out, every row
// padded with zeros to a multiple of 16 bytes.
#pragma once
#include "ptx/base.cuh"

namespace maxsim {

// Rows of one query (or a part of a long one) in a tile of query rows.
struct Slot {
    u32 row;       // first row among all query rows
    u32 rows;
    u32 tile_row;  // first row in the tile, a multiple of 8
    u32 block;     // first of the query's blocks of 32 rows that lies here
    i64 score;     // score of document j at `scores[score + j]`
    i64 partial;   // sums of the blocks of rows at `partials[(partial + j) · partial_stride + block]`
    i64 argmax;    // winner of the query's token s at `argmax[argmax + j · argmax_stride + s]`
    i64 argmax_stride;
};

// A tile of query rows and the documents it meets. Where slots count documents, document `j` is number `j + shift` (modulo
// 2³²): results of documents from all over the place can lie side by side.
struct Job {
    u32 tile, document_begin, document_end, shift;
};

struct ForwardParams {
    const u8* q;
    const u8* d;                 // residual documents: packed residuals
    const float* q_factors;      // per query row, applied to its maximum; null: 1
    const float* d_factors;      // per document row, applied to its similarities
    const u32* d_offsets;        // [documents + 1] rows
    const i32* q_ids;            // per query row: the token it is; null: counted from the query's first row
    const i32* d_ids;            // per document row, likewise
    const u32* q_starts;         // per slot: the query's first row, which `q_ids` = null counts from
    const Slot* slots;
    const u32* tiles;            // [tiles + 1] slots
    const Job* job_list;         // null: every tile with every chunk of documents
    const u32* chunk_documents;  // [jobs / tiles + 1] documents
    const float* table;          // residual documents: similarities [centroids, table_stride]
    const u32* codes;            // residual documents: per row
    const float* weights;        // residual documents: [256][8 / bits] weights of the fields of every byte
    const float* bias;           // projections: per query row; null: 0
    float* scores;               // projections: [rows, out_stride]
    float* partials;             // null: whole queries lie in tiles
    i32* argmax;
    u32 q_stride, d_stride;      // bytes
    u32 chunks;                  // of `kChunk` elements in a row
    u32 jobs, tile_count;
    u32 chunk_rows;              // projections: rows of a chunk
    u32 row_end;                 // rows there are; what lies behind is not read
    u32 partial_stride, table_stride, out_stride;
    u32 centroids;               // codes from here on count as masked
    u32 q_base;                  // query row of column 0 of `table` or a projection
    float weight_scale;          // residual documents: brings the largest weight to [1, 4)
    u32 unused;
};

// Job `index`. Without a list, tiles vary fastest, so that blocks that run together read the same documents.
MS_FN Job find_job(const ForwardParams& p, u32 index) {
    if (p.job_list) return p.job_list[index];
    u32 tile = index % p.tile_count, chunk = index / p.tile_count;
    return {tile, p.chunk_documents[chunk], p.chunk_documents[chunk + 1], 0};
}

}  // namespace maxsim
