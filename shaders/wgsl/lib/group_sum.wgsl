// The sum of a group of rows in row order, for workgroups of GROUP invocations: each brings the contribution of its row, the
// first has the sum, the others 0.
#import order

var<workgroup> contributions: array<f32, GROUP>;

fn group_sum(contribution: f32, local: u32) -> f32 {
    contributions[local] = contribution;
    workgroupBarrier();
    var sum = 0.0;
    if (local == 0u) {
        for (var r = 0u; r < GROUP; r++) {
            sum += contributions[r];
        }
    }
    workgroupBarrier();
    return sum;
}
