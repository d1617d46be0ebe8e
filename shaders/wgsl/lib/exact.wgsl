// Numbers as integers, rounded as IEEE 754 wants: GPUs have no f64, divide as they like, and drop subnormal numbers.
//
// Magnitudes of f32 are their bits. A Double is a positive f64, `(hi · 2^32 + lo) · 2^e` with 53 bits, or zero with `hi` = 0.

struct Double {
    hi: u32,
    lo: u32,
    e: i32,
}

const INFINITE: u32 = 0x7f800000u;

// m / 2^s to the nearest integer, ties to even; `more`: something behind m is not zero.
fn shifted(m: u32, s: u32, more: bool) -> u32 {
    if (s > 31u) {
        return 0u;
    }
    let whole = m >> s;
    let rest = m - (whole << s);
    let half = (1u << s) >> 1u;
    let up = rest > half || (rest == half && (more || (whole & 1u) != 0u));
    return whole + select(0u, 1u, up && s > 0u);
}

// A magnitude other than zero, exactly.
fn widened(magnitude: u32) -> Double {
    var m = (magnitude & 0x7fffffu) | 0x800000u;
    var e = i32(magnitude >> 23u) - 150;
    if (magnitude < 0x800000u) {
        let up = 23u - firstLeadingBit(magnitude);
        m = magnitude << up;
        e = -149 - i32(up);
    }
    return Double(m >> 3u, m << 29u, e - 29);
}

// Its square, exactly: 24 bits have one of 48.
fn square(magnitude: u32) -> Double {
    let x = widened(magnitude);
    let m = (x.hi << 3u) | (x.lo >> 29u);
    let a = m >> 12u;
    let b = m & 0xfffu;
    let low = b * b + ((2u * a * b) << 12u);
    let lo = low + ((a * a) << 24u);
    let carries = select(0u, 1u, low < b * b) + select(0u, 1u, lo < low);
    let hi = ((2u * a * b) >> 20u) + ((a * a) >> 8u) + carries;
    let up = select(6u, 5u, hi >= 0x8000u);
    return Double((hi << up) | (lo >> (32u - up)), lo << up, 2 * (x.e + 29) - i32(up));
}

// a + b, rounded.
fn sum_of(a: Double, b: Double) -> Double {
    var big = a;
    var small = b;
    if (a.e < b.e) {
        big = b;
        small = a;
    }
    let d = u32(big.e - small.e);
    // A zero has the exponent 0: it may be the larger one, and changes nothing in either place.
    if (a.hi == 0u) {
        return b;
    }
    if (b.hi == 0u || d > 53u) {
        return big;
    }
    // Ten bits more for what is shifted out, the last of them for whether that was zero.
    var lo = small.lo << 10u;
    var hi = (small.hi << 10u) | (small.lo >> 22u);
    if (d >= 32u) {
        let lost = lo | (hi & ((1u << (d - 32u)) - 1u));
        lo = (hi >> (d - 32u)) | select(0u, 1u, lost != 0u);
        hi = 0u;
    } else if (d > 0u) {
        let lost = lo & ((1u << d) - 1u);
        lo = (lo >> d) | (hi << (32u - d)) | select(0u, 1u, lost != 0u);
        hi = hi >> d;
    }
    let other = big.lo << 10u;
    lo += other;
    hi += ((big.hi << 10u) | (big.lo >> 22u)) + select(0u, 1u, lo < other);
    let drop = select(10u, 11u, hi >= 0x80000000u);
    let rest = lo & ((1u << drop) - 1u);
    let half = 1u << (drop - 1u);
    lo = (lo >> drop) | (hi << (32u - drop));
    hi = hi >> drop;
    return carried(hi, lo, rest > half || (rest == half && (lo & 1u) != 0u), big.e + i32(drop) - 10);
}

// One more if `up`.
fn carried(hi: u32, lo: u32, up: bool, e: i32) -> Double {
    let low = lo + select(0u, 1u, up);
    let high = hi + select(0u, 1u, up && low == 0u);
    if (high == 0x200000u) {
        return Double(0x100000u, 0u, e + 1);
    }
    return Double(high, low, e);
}

fn at_least(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y >= b.y);
}

fn less(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x - select(0u, 1u, a.y < b.y), a.y - b.y);
}

// The square root, rounded: 54 bits of it, digit by digit; the last one rounds, as no root lies between two numbers.
fn root_of(x: Double) -> Double {
    let odd = u32(x.e & 1);
    let hi = (x.hi << odd) | ((x.lo >> 31u) & odd);
    let lo = x.lo << odd;
    var rest = vec2<u32>();
    var root = vec2<u32>();
    for (var i = 0u; i < 54u; i++) {
        var pair = 0u;
        if (i < 11u) {
            pair = (hi >> (20u - 2u * i)) & 3u;
        } else if (i < 27u) {
            pair = (lo >> (52u - 2u * i)) & 3u;
        }
        rest = vec2<u32>((rest.x << 2u) | (rest.y >> 30u), (rest.y << 2u) | pair);
        let trial = vec2<u32>((root.x << 2u) | (root.y >> 30u), (root.y << 2u) | 1u);
        let fits = at_least(rest, trial);
        rest = select(rest, less(rest, trial), fits);
        root = vec2<u32>((root.x << 1u) | (root.y >> 31u), (root.y << 1u) | select(0u, 1u, fits));
    }
    return carried(
        root.x >> 1u,
        (root.y >> 1u) | (root.x << 31u),
        (root.y & 1u) != 0u,
        (x.e - i32(odd) - 54) / 2 + 1,
    );
}

// A finite magnitude divided as f64, the quotient rounded to f64, and that to f32.
fn over(magnitude: u32, divisor: Double) -> u32 {
    if (magnitude == 0u) {
        return 0u;
    }
    let x = widened(magnitude);
    let by = vec2<u32>(divisor.hi, divisor.lo);
    var rest = vec2<u32>(x.hi, x.lo);
    var e = x.e - divisor.e;
    if (!at_least(rest, by)) {
        rest = vec2<u32>((rest.x << 1u) | (rest.y >> 31u), rest.y << 1u);
        e -= 1;
    }
    // 25 bits: one more than f32 has.
    var q = 0u;
    for (var i = 0u; i < 25u; i++) {
        let fits = at_least(rest, by);
        rest = select(rest, less(rest, by), fits);
        q = (q << 1u) | select(0u, 1u, fits);
        if (i < 24u) {
            rest = vec2<u32>((rest.x << 1u) | (rest.y >> 31u), rest.y << 1u);
        }
    }
    // f64 has 28 bits more. Within half a step of one that ends in zeros, it is that one.
    let near = vec2<u32>(0u, (by.x << 3u) | (by.y >> 29u));
    var more = !at_least(near, rest);
    if (more && at_least(near, less(by, rest))) {
        q += 1u;
        more = false;
    }
    let bits = shifted(q, u32(1 + max(0, -126 - e)), more);
    if (e < -126) {
        return bits;
    }
    return min((u32(min(e, 128) + 126) << 23u) + bits, INFINITE);
}
