//! The training example in small: its gradients are those of its losses, and it learns.

#[path = "../examples/training/mod.rs"]
mod training;

use maxsim::{Engine, EngineBuilder};
use training::{
    Config, Projection, Task, contrastive,
    distillation::{self, Groups},
};

/// Seconds where everything is unoptimised.
const CONFIG: Config = Config {
    train: 800,
    held_out: 200,
    dim: 32,
    batch: 32,
    steps: 200,
    learning_rate: 5e-3,
    temperature: 0.5,
};

/// Nothing learned, but every line run.
const SHORT: Config = Config { train: 24, held_out: 8, dim: 8, batch: 12, steps: 3, ..CONFIG };

fn engine() -> Engine {
    maxsim::engine().expect("a CPU")
}

/// Measured over five seeds: the loss falls by a factor of 6.9 to 7.8; recall@1 is 0.02 at most, then 0.99 at least.
#[test]
fn a_projection_learns_from_pairs() {
    let report = contrastive::run(&engine(), CONFIG, 3).unwrap();
    let [before, after] = report.loss;
    assert!(after * 5.0 < before, "{report:?}");
    let [before, after] = report.found;
    assert!(before.recall_at_1 < 0.1 && before.mrr < 0.2, "there was something to learn: {report:?}");
    assert!(after.recall_at_1 > 0.9 && after.mrr > 0.9, "{report:?}");
    assert!(report.undisturbed.recall_at_1 > 0.95, "words alone would do: {report:?}");
}

/// Measured over five seeds: the loss falls by a factor of 49 to 66; agreement is 0.16 at most (chance is 1 in 8), then
/// 0.985 at least.
#[test]
fn a_projection_learns_from_a_teacher() {
    let report = distillation::run(&engine(), CONFIG, 3).unwrap();
    let [before, after] = report.loss;
    assert!(after * 20.0 < before, "{report:?}");
    let [before, after] = report.agreement;
    assert!(before < 0.35 && after > 0.9, "{report:?}");
}

#[test]
fn training_is_the_same_every_time() {
    let on = |threads| EngineBuilder::new().threads(threads).build().unwrap();
    assert_eq!(contrastive::run(&on(1), SHORT, 5).unwrap(), contrastive::run(&on(3), SHORT, 5).unwrap());
    assert_eq!(distillation::run(&on(1), SHORT, 5).unwrap(), distillation::run(&on(3), SHORT, 5).unwrap());
}

/// Compares a gradient with the slope of the loss, along the gradient in each quarter of `W` (rows, then columns).
fn check_gradient(start: &Projection, loss_and_gradient: impl Fn(&Projection) -> (f64, Vec<f32>)) {
    let (_, gradient) = loss_and_gradient(start);
    let [dim, d_model] = start.shape;
    for part in 0..8 {
        let inside = |i: usize| match part {
            0..4 => i / d_model * 4 / dim == part,
            _ => i % d_model * 4 / d_model == part - 4,
        };
        let mut direction: Vec<f64> = gradient.iter().map(|&g| f64::from(g)).collect();
        direction.iter_mut().enumerate().filter(|(i, _)| !inside(*i)).for_each(|(_, x)| *x = 0.0);
        let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        // Larger, and winners change along the way; smaller, and the rounding of f32 scores shows.
        let step = 2e-4;
        let loss_at = |sign: f64| {
            let mut moved = start.clone();
            for (w, x) in moved.w.iter_mut().zip(&direction) {
                *w = (f64::from(*w) + sign * step * x / length) as f32;
            }
            loss_and_gradient(&moved).0
        };
        let slope = (loss_at(1.0) - loss_at(-1.0)) / (2.0 * step);
        assert!((slope - length).abs() < 0.01 * length, "part {part}: slope {slope}, gradient {length}");
    }
}

#[test]
fn gradients_are_slopes_of_the_losses() {
    let engine = engine();
    let task = Task::new(SHORT, 7).unwrap();
    check_gradient(&task.start, |w| contrastive::loss_and_gradient(&engine, w, &task.train, 0.5).unwrap());
    let groups = Groups::new(&engine, &task.clean.range(0..SHORT.train), &task.train).unwrap();
    check_gradient(&task.start, |w| {
        let (loss, gradient, _) = distillation::loss_and_gradient(&engine, w, &groups, 0.5).unwrap();
        (loss, gradient)
    });
}
