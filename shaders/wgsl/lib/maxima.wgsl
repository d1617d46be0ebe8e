// The end of a scoring kernel: maxima of the invocations that share query rows put together, left, and added up.
//
// Kernels define TM, the rows of an invocation; NX invocations share rows, NY groups of them make up a workgroup of THREADS.
// `tile` is their workgroup memory, at least 2·THREADS vectors. Four rows of each invocation go through it at a time.
#import scoring

fn settle(
    work: Work,
    best: ptr<function, array<i32, TM>>,
    index: ptr<function, array<u32, TM>>,
    local: u32,
) {
    for (var g = 0u; g < TM / 4u; g++) {
        workgroupBarrier();
        tile[local] = bitcast<vec4<u32>>(
            vec4<i32>((*best)[4u * g], (*best)[4u * g + 1u], (*best)[4u * g + 2u], (*best)[4u * g + 3u]));
#if ARGMAX
        tile[THREADS + local] =
            vec4<u32>((*index)[4u * g], (*index)[4u * g + 1u], (*index)[4u * g + 2u], (*index)[4u * g + 3u]);
#endif
        workgroupBarrier();
        if (local < 4u * NY) {
            let lane = local % 4u;
            let origin = (local / 4u) * NX;
            let row = (local / 4u) * TM + 4u * g + lane;
            var key = NO_WINNER;
            var winner = 0u;
            for (var other = 0u; other < NX; other++) {
                let there = bitcast<i32>(tile[origin + other][lane]);
#if ARGMAX
                let its = tile[THREADS + origin + other][lane];
                if (there > key || (there == key && its < winner)) {
                    winner = its;
                }
#endif
                key = max(key, there);
            }
            leave(work, row, key, winner);
        }
    }
    workgroupBarrier();
    add_up(work, local);
}
