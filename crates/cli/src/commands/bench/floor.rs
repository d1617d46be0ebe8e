//! What this machine can do at best, measured: reading memory, and multiplying and adding f32.

use std::hint::black_box;
use std::time::Instant;

use maxsim::Cost;
#[cfg(target_arch = "x86_64")]
use maxsim::CpuLevel;
use serde::Serialize;

/// More than most caches hold, so that reading it is reading memory.
const READ_BYTES: usize = 128 << 20;
/// Rounds of [`multiply_adds`]; some milliseconds.
const ROUNDS: usize = 1 << 20;
/// Sums in flight: enough to cover the latency of an addition on every port.
const CHAINS: usize = 12;
const TRIES: usize = 3;

/// Rates of this machine, with as many threads as the engine.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Machine {
    /// Bytes read from memory per second.
    pub(crate) read_bytes_per_s: f64,
    /// f32 operations per second, a multiply-add counting two.
    pub(crate) flops_per_s: f64,
}

impl Machine {
    /// The least time `cost` takes here, in microseconds.
    pub(crate) fn floor_us(&self, cost: Cost) -> f64 {
        let read = cost.bytes as f64 / self.read_bytes_per_s;
        let compute = cost.flops as f64 / self.flops_per_s;
        read.max(compute) * 1e6
    }
}

/// Measures with `threads` threads; about a tenth of a second.
pub(crate) fn measure(threads: usize) -> Machine {
    let threads = threads.max(1);
    let memory = vec![1u64; READ_BYTES / 8];
    let read = best(threads, |thread| {
        let share = memory.len() / threads;
        sum(&memory[thread * share..(thread + 1) * share])
    });
    let (lanes, run) = multiply_add_kernel();
    let compute = best(threads, |_| run(ROUNDS));
    Machine {
        read_bytes_per_s: (memory.len() / threads * threads * 8) as f64 / read,
        flops_per_s: (2 * lanes * CHAINS * ROUNDS * threads) as f64 / compute,
    }
}

/// Shortest time, of several tries, until all threads are through `work`.
fn best<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> f64 {
    let once = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 1..threads {
                let work = &work;
                scope.spawn(move || black_box(work(thread)));
            }
            black_box(work(0));
        });
        start.elapsed().as_secs_f64()
    };
    (0..TRIES).map(|_| once()).fold(f64::INFINITY, f64::min)
}

fn sum(values: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    for chunk in values.chunks_exact(16) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*value);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// `x · a + b` over and over on `CHAINS` vectors; the names are a level's instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! multiply_adds {
    ($rounds:expr, $set:ident, $multiply_add:ident, $add:ident, $first:expr) => {{
        let (a, b) = ($set(black_box(0.999_9)), $set(black_box(1e-4)));
        let mut sums = [$set(1.0); CHAINS];
        for _ in 0..$rounds {
            for sum in &mut sums {
                *sum = $multiply_add(*sum, a, b);
            }
        }
        let mut total = sums[0];
        for sum in &sums[1..] {
            total = $add(total, *sum);
        }
        $first(total)
    }};
}

/// Numbers per vector and the loop, for the best level of this machine.
fn multiply_add_kernel() -> (usize, fn(usize) -> f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        #[target_feature(enable = "avx512f")]
        fn avx512(rounds: usize) -> f32 {
            multiply_adds!(rounds, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_reduce_add_ps)
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(rounds: usize) -> f32 {
            multiply_adds!(rounds, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_cvtss_f32)
        }
        if CpuLevel::Avx512.is_available() {
            // SAFETY: the level is available, so the machine has AVX-512 F.
            return (16, |rounds| unsafe { avx512(rounds) });
        }
        if CpuLevel::Avx2.is_available() {
            // SAFETY: the level is available, so the machine has AVX2 and FMA.
            return (8, |rounds| unsafe { avx2(rounds) });
        }
    }
    (4, |rounds| {
        let (a, b) = (black_box([0.999_9f32; 4]), black_box([1e-4f32; 4]));
        let mut sums = [[1f32; 4]; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                for lane in 0..4 {
                    // Where there is no instruction for it, `mul_add` is a library call.
                    sum[lane] = if cfg!(target_arch = "aarch64") {
                        sum[lane].mul_add(a[lane], b[lane])
                    } else {
                        sum[lane] * a[lane] + b[lane]
                    };
                }
            }
        }
        sums.iter().flatten().sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_scarcer_resource() {
        let machine = Machine { read_bytes_per_s: 1e9, flops_per_s: 1e12 };
        assert_eq!(machine.floor_us(Cost { flops: 0, bytes: 1000 }), 1.0);
        assert_eq!(machine.floor_us(Cost { flops: 2_000_000, bytes: 1000 }), 2.0);
    }

    #[test]
    fn rates_are_plausible() {
        let machine = measure(1);
        assert!(machine.read_bytes_per_s > 1e8 && machine.read_bytes_per_s < 1e13, "{machine:?}");
        assert!(machine.flops_per_s > 1e8 && machine.flops_per_s < 1e13, "{machine:?}");
    }
}
