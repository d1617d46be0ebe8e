// Stored elements to f32. `decode(words, part)`: the four elements `part` of the 16 bytes `words`.
//
// ELEMENT is F32, F16, BF16, E4M3 or I8; I8_DOT keeps bytes as they are.

#if ELEMENT == F32
fn decode(words: vec4<u32>, part: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(words);
}
#endif
#if ELEMENT == F16
fn decode(words: vec4<u32>, part: u32) -> vec4<f32> {
    let pair = select(words.xy, words.zw, part != 0u);
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}
#endif
#if ELEMENT == BF16
fn decode(words: vec4<u32>, part: u32) -> vec4<f32> {
    let pair = select(words.xy, words.zw, part != 0u);
    // A bf16 is the upper half of an f32.
    let low = pair << vec2<u32>(16u);
    let high = pair & vec2<u32>(0xffff0000u);
    return bitcast<vec4<f32>>(vec4<u32>(low.x, high.x, low.y, high.y));
}
#endif
#if ELEMENT == E4M3
fn decode(words: vec4<u32>, part: u32) -> vec4<f32> {
    let bytes = (vec4<u32>(words[part]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
    let magnitude = bytes & vec4<u32>(0x7fu);
    // Exponents differ by 120. Subnormals count in steps of 2^-9; as f32 bits they would be subnormal too, and flushed.
    let normal = (magnitude << vec4<u32>(20u)) + vec4<u32>(0x3c000000u);
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0.001953125);
    let finite = select(normal, subnormal, magnitude < vec4<u32>(8u));
    let value = select(finite, vec4<u32>(0x7fc00000u), magnitude == vec4<u32>(0x7fu));
    return bitcast<vec4<f32>>(value | ((bytes & vec4<u32>(0x80u)) << vec4<u32>(24u)));
}
#endif
#if ELEMENT == I8
fn decode(words: vec4<u32>, part: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(words[part]));
}
#endif
