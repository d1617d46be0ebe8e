// Which pairs there are, and where their winners lie. Mirrored in Rust.
#pragma once
#include "ptx/base.cuh"

namespace maxsim {

enum Pairing : u32 { kCross = 0, kGrouped = 1, kList = 2 };

// Winners of pair (i, j): one per packed row of query i, a packed row of document j counted from its first, or −1.
struct Pairs {
    const u32* q_offsets;
    const u32* d_offsets;
    const u32* list_q;       // list: query and document of every pair
    const u32* list_d;
    const u64* list_first;   // list: first winner of every pair
    const u32* by_query;     // list: pairs of every query, in order
    const u32* by_query_at;  // [queries + 1]
    const u32* by_document;  // list: pairs of every document, in order
    const u32* by_document_at;
    u32 pairing, documents, k, queries;
};

struct Pair {
    u32 query, document;
    u64 first;  // winner
    u64 index;  // score gradient
};

// Pair of a cross product or of groups: document number `place` of those that `query` meets.
MS_FN Pair pair_at(const Pairs& p, u32 query, u32 place) {
    u32 width = p.pairing == kCross ? p.documents : p.k;
    u64 index = u64(query) * width + place;
    u32 begin = p.q_offsets[query], rows = p.q_offsets[query + 1] - begin;
    return {query, p.pairing == kCross ? place : u32(index), u64(begin) * width + u64(place) * rows, index};
}
MS_FN Pair listed_pair(const Pairs& p, u32 index) {
    return {p.list_q[index], p.list_d[index], p.list_first[index], index};
}

MS_FN u32 pairs_of_query(const Pairs& p, u32 query) {
    if (p.pairing == kList) return p.by_query_at[query + 1] - p.by_query_at[query];
    return p.pairing == kCross ? p.documents : p.k;
}
MS_FN Pair pair_of_query(const Pairs& p, u32 query, u32 i) {
    if (p.pairing == kList) return listed_pair(p, p.by_query[p.by_query_at[query] + i]);
    return pair_at(p, query, i);
}

MS_FN u32 pairs_of_document(const Pairs& p, u32 document) {
    if (p.pairing == kList) return p.by_document_at[document + 1] - p.by_document_at[document];
    return p.pairing == kCross ? p.queries : 1;
}
MS_FN Pair pair_of_document(const Pairs& p, u32 document, u32 i) {
    if (p.pairing == kList) return listed_pair(p, p.by_document[p.by_document_at[document] + i]);
    if (p.pairing == kCross) return pair_at(p, i, document);
    return pair_at(p, document / p.k, document % p.k);
}

}  // namespace maxsim
