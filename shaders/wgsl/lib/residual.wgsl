// Tokens of PLAID documents: `centroids[code] + weights[bucket]`.
//
// `documents` holds rows of `codec[0].x` words: the centroid's number, the inverse norm, then a bucket of `codec[0].y` bits per
// element, lowest bits first. `codec` holds (words per row, bits, elements, vectors of weights), weights, centroids as f32.

// Elements 4·part … 4·part + 3 of a row; zero behind the last.
fn decoded(row: u32, part: u32) -> vec4<f32> {
    let head = codec[0];
    let bits = head.y;
    let at = row * head.x;
    let bit = 4u * part * bits;
    let fields = vec4<u32>(documents[at + 2u + bit / 32u] >> (bit % 32u));
    let bucket = (fields >> (vec4<u32>(0u, 1u, 2u, 3u) * bits)) & vec4<u32>((1u << bits) - 1u);
    let centroid = 1u + head.w + documents[at] * ((head.z + 3u) / 4u);
    let token = bitcast<vec4<f32>>(codec[centroid + part]) + weights(bucket, bits);
    return select(vec4<f32>(), token, vec4<u32>(4u * part) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(head.z));
}

fn weights(bucket: vec4<u32>, bits: u32) -> vec4<f32> {
    if (bits > 2u) {
        return vec4<f32>(weight(bucket.x), weight(bucket.y), weight(bucket.z), weight(bucket.w));
    }
    // Up to four of them are chosen among, not looked up. All invocations go the same way.
    let four = bitcast<vec4<f32>>(codec[1]);
    let odd = (bucket & vec4<u32>(1u)) != vec4<u32>();
    let low = select(vec4<f32>(four.x), vec4<f32>(four.y), odd);
    let high = select(vec4<f32>(four.z), vec4<f32>(four.w), odd);
    return select(low, high, (bucket & vec4<u32>(2u)) != vec4<u32>());
}

fn weight(bucket: u32) -> f32 {
    return bitcast<f32>(codec[1u + bucket / 4u][bucket % 4u]);
}

fn inverse_norm(row: u32) -> f32 {
    return bitcast<f32>(documents[row * codec[0].x + 1u]);
}
