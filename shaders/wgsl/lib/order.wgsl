// Similarities as integers that order like them. Compilers may assume that NaN and infinity do not occur in floating-point
// comparisons; integers leave them nothing to assume.

// Keys at or below this are no winners: -inf, and NaN of either sign.
const NO_WINNER: i32 = -2139095041; // key of -inf
const INFINITY_BITS: u32 = 0x7f800000u;
// Bits of a score that is none, and the key by which selections sort it: behind everything.
const ABSENT: u32 = 0xffffffffu;

fn key_of(similarity: f32) -> i32 {
    let bits = bitcast<i32>(similarity);
    let key = bits ^ ((bits >> 31u) & 0x7fffffff);
    return select(key, NO_WINNER, key > i32(INFINITY_BITS));
}

fn value_of(key: i32) -> f32 {
    return bitcast<f32>(key ^ ((key >> 31u) & 0x7fffffff));
}

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > INFINITY_BITS;
}

// Sums over query rows are made in groups of this many rows, counted from the query's first: each group in row order, then
// the groups in order. Long sums stay accurate without tricks that compilers undo, and rows behind the last add nothing.
const GROUP: u32 = 32u;
