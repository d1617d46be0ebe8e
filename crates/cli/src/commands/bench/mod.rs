//! `maxsim bench`: one operator on random inputs, timed; and records compared.

mod compare;
mod floor;
mod inputs;
mod record;

use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use maxsim::{
    ApproxScore, Argmax, Backward, BackwardMethod, Codec, Corpus, CorpusOptions, Cost, DType, Documents,
    Engine, Forward, FromHidden, Gradients, Op, Options, Output, Plan, Precision, Residual, ResidualLayout,
    Retrieve, RetrieveOptions, Scores, TensorRef,
};

use crate::alloc;
use crate::exit::{Outcome, Usage};
use crate::operand::Operand;
use crate::output::{Out, bytes, duration};
use crate::setup::{self, Global};
use inputs::Inputs;
use record::{Record, Shape};

/// Time one operator on random inputs, or compare two records
///
/// Inputs are Gaussian vectors of unit length from a fixed seed. One call warms up and is not counted.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  maxsim bench --op forward --nq 32 --nd 1000 --lq 32 --ld 300 --dim 128 --dtype f16
  maxsim bench --op retrieve --nd 10000 --top-k 10 --json
  maxsim bench --op varlen --ragged 20 --ld 180
  maxsim bench compare old.json new.json --tolerance 5

With --json one object is printed: op, shape, dtype, backend, device, kernel, normalize, precision, threads, reps,
gpu_us (median; null where no GPU tells), wall_us (median), min_us, gflops, peak_bytes, floor_us, machine.
  peak_bytes  allocated at the peak of one call, beyond its inputs and its result
  floor_us    the least time this machine could need: the larger of the operator's bytes at the rate it reads memory
              and the operator's flops at the rate it multiplies and adds f32 in registers, both measured by this
              very run, with its number of threads and the best SIMD level (`machine`: bytes and flops per second).
              Data that stays in caches can be read faster than that."
)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,

    #[command(flatten)]
    case: Case,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    Compare(compare::CompareArgs),
}

/// What is timed.
#[derive(Debug, Args)]
struct Case {
    /// Operator
    #[arg(long, value_enum, default_value = "forward")]
    op: BenchOp,
    /// Queries
    #[arg(long, default_value_t = 1, value_name = "N")]
    nq: usize,
    /// Documents
    #[arg(long, default_value_t = 1000, value_name = "N")]
    nd: usize,
    /// Tokens per query
    #[arg(long, default_value_t = 32, value_name = "N")]
    lq: usize,
    /// Tokens per document
    #[arg(long, default_value_t = 180, value_name = "N")]
    ld: usize,
    /// Embedding dimension
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = setup::positive())]
    dim: usize,
    /// Element type of queries and documents
    #[arg(long, default_value = "f32", value_parser = setup::dtype(&["f32", "f16", "bf16", "fp8", "int8"]))]
    dtype: DType,
    /// Documents per query, each query with its own (forward: D is [Nq, K, Ld, d]; --nd is not used)
    #[arg(long, value_name = "K")]
    k_docs: Option<usize>,
    /// Documents of LO to --ld tokens, evenly distributed, instead of all --ld
    #[arg(long, value_name = "LO")]
    ragged: Option<usize>,
    /// Normalise every token
    #[arg(long)]
    normalize: bool,
    /// How exact the products are
    #[arg(long, default_value = "default", value_parser = precision())]
    precision: Precision,
    /// Results per query (retrieve)
    #[arg(long, default_value_t = 10, value_name = "K", value_parser = setup::positive())]
    top_k: usize,
    /// Documents scored at a time (retrieve)
    #[arg(long, value_name = "N", value_parser = setup::positive())]
    chunk: Option<usize>,
    /// Number of random pairs (score_pairs)
    #[arg(long, default_value_t = 1000, value_name = "P")]
    pairs: usize,
    /// Size of the hidden states (from_hidden)
    #[arg(long, default_value_t = 768, value_name = "N", value_parser = setup::positive())]
    d_model: usize,
    /// Number of centroids (residual, approx)
    #[arg(long, default_value_t = 4096, value_name = "C", value_parser = setup::positive())]
    centroids: usize,
    /// Bits per dimension (residual)
    #[arg(long, default_value = "4", value_name = "BITS", value_parser = nbits())]
    nbits: u32,
    /// How gradients are accumulated (fwd_bwd)
    #[arg(long, default_value = "auto", value_parser = method())]
    method: BackwardMethod,
    /// Upload the documents before the clock starts
    #[arg(long)]
    resident: bool,
    /// Timed calls [default: as many as fit in about a second, 3 to 100]
    #[arg(long, value_name = "N", value_parser = setup::positive())]
    reps: Option<usize>,
    /// Seed of the inputs
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    seed: u64,
}

fn precision() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(["default", "exact", "fast", "int8"]).try_map(|name| name.parse::<Precision>())
}

fn method() -> impl TypedValueParser<Value = BackwardMethod> {
    PossibleValuesParser::new(["auto", "unified", "lowmem"]).try_map(|name| name.parse::<BackwardMethod>())
}

fn nbits() -> impl TypedValueParser<Value = u32> {
    PossibleValuesParser::new(["1", "2", "4", "8"]).try_map(|bits| bits.parse::<u32>())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum BenchOp {
    /// Every query with every document, padded
    Forward,
    /// Forward and its gradients
    FwdBwd,
    /// The best documents per query
    Retrieve,
    /// Every query with every document, packed
    Varlen,
    /// A list of pairs, packed
    ScorePairs,
    /// Forward with documents as hidden states, projected on the way
    FromHidden,
    /// Forward on documents as PLAID codes and residuals, packed
    Residual,
    /// PLAID scores from centroids alone, packed
    Approx,
    /// Forward on fp8 e4m3 tokens with a scale each
    Fp8,
    /// Forward on int8 tokens with a scale each
    Int8,
}

impl BenchOp {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::FwdBwd => "fwd_bwd",
            Self::Retrieve => "retrieve",
            Self::Varlen => "varlen",
            Self::ScorePairs => "score_pairs",
            Self::FromHidden => "from_hidden",
            Self::Residual => "residual",
            Self::Approx => "approx",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
        }
    }
}

/// Runs `maxsim bench`.
pub(crate) fn run(global: &Global, args: &BenchArgs) -> anyhow::Result<Outcome> {
    if let Some(BenchCommand::Compare(args)) = &args.command {
        return compare::run(args);
    }
    let case = &args.case;
    if let Some(low) = case.ragged
        && low > case.ld
    {
        return Err(Usage::new(format!("--ragged {low} is more than --ld {}", case.ld)).into());
    }
    let takes_k = [BenchOp::Forward, BenchOp::FwdBwd, BenchOp::Fp8, BenchOp::Int8];
    if case.k_docs.is_some() && !takes_k.contains(&case.op) {
        return Err(Usage::new(format!("--k-docs does not go with --op {}", case.op.name())).into());
    }
    let own_layout = [BenchOp::FwdBwd, BenchOp::FromHidden, BenchOp::Approx];
    if case.resident && own_layout.contains(&case.op) {
        return Err(Usage::new(format!("--resident does not go with --op {}", case.op.name())).into());
    }
    if case.op == BenchOp::Approx && case.nq != 1 {
        return Err(Usage::new("--op approx scores one query at a time: --nq is 1").into());
    }
    let bench = Bench { engine: global.timed_engine()?, case };
    let record = match case.op {
        BenchOp::Forward => bench.forward(case.dtype),
        BenchOp::Fp8 => bench.forward(DType::E4M3),
        BenchOp::Int8 => bench.forward(DType::I8),
        BenchOp::Retrieve => bench.retrieve(),
        BenchOp::Varlen => bench.varlen(),
        BenchOp::ScorePairs => bench.score_pairs(),
        BenchOp::FwdBwd => bench.forward_backward(),
        BenchOp::FromHidden => bench.head(),
        BenchOp::Residual => bench.residual(),
        BenchOp::Approx => bench.approx(),
    }?;
    let mut out = Out::stdout();
    if args.json {
        out.json(&record)?;
    } else {
        print(&record, &mut out)?;
    }
    Ok(Outcome::Success)
}

fn print(record: &Record, out: &mut Out) -> std::io::Result<()> {
    use std::io::Write;
    let micros = |us: f64| duration(Duration::from_secs_f64(us / 1e6));
    writeln!(
        out,
        "{} {} {} on {}: {} (best {}, {} reps), {:.1} GFLOP/s, {} extra, {} threads",
        record.op,
        record.shape,
        record.dtype,
        record.kernel,
        micros(record.wall_us),
        micros(record.min_us),
        record.reps,
        record.gflops,
        bytes(record.peak_bytes),
        record.threads,
    )?;
    if let Some(floor) = record.floor_us {
        let gap = if floor > 0.0 { record.wall_us / floor } else { f64::NAN };
        writeln!(out, "floor {}: the call takes {gap:.1} times as long", micros(floor))?;
    }
    out.flush()
}

/// One function per operator makes its inputs; all of them end in [`Bench::measure`].
struct Bench<'a> {
    engine: Engine,
    case: &'a Case,
}

impl Bench<'_> {
    fn options(&self) -> Options {
        Options {
            normalize: self.case.normalize,
            precision: self.case.precision,
            argmax: false,
            validate_finite: false,
        }
    }

    fn shape(&self) -> Shape {
        let Case { nq, nd, lq, ld, dim, ragged, resident, .. } = *self.case;
        Shape { nq, nd, lq, ld, dim, ragged, resident: resident.then_some(true), ..Shape::default() }
    }

    fn inputs(&self) -> Inputs {
        Inputs { seed: self.case.seed, threads: self.engine.info().threads }
    }

    /// The documents on the device, if that was asked for.
    fn upload(&self, documents: &Operand) -> anyhow::Result<Option<Corpus>> {
        if !self.case.resident {
            return Ok(None);
        }
        let options = CorpusOptions { normalize: false, ..CorpusOptions::default() };
        Ok(Some(self.engine.corpus(documents.tokens()?, options)?))
    }

    fn forward(&self, dtype: DType) -> anyhow::Result<Record> {
        let Case { nq, nd, lq, ld, dim, k_docs, ragged, .. } = *self.case;
        let q = self.inputs().padded(0, &[nq, lq, dim], None, dtype)?;
        let d = match k_docs {
            None => self.inputs().padded(1, &[nd, ld, dim], ragged, dtype)?,
            Some(k) => self.inputs().padded(1, &[nq, k, ld, dim], ragged, dtype)?,
        };
        let corpus = self.upload(&d)?;
        let op = Forward::maxsim(q.tokens()?, documents(&d, corpus.as_ref())?, self.options());
        let nd = k_docs.map_or(nd, |k| nq * k);
        self.measure(&Op::Forward(op), dtype, Shape { nd, k_docs, ..self.shape() })
    }

    fn retrieve(&self) -> anyhow::Result<Record> {
        let Case { nq, nd, lq, ld, dim, ragged, dtype, top_k, chunk, .. } = *self.case;
        let q = self.inputs().padded(0, &[nq, lq, dim], None, dtype)?;
        let d = self.inputs().padded(1, &[nd, ld, dim], ragged, dtype)?;
        let corpus = self.upload(&d)?;
        let options = RetrieveOptions { chunk, scoring: self.options(), ..RetrieveOptions::top_k(top_k) };
        let op = Retrieve::new(q.tokens()?, documents(&d, corpus.as_ref())?, options);
        self.measure(&Op::Retrieve(op), dtype, Shape { top_k: Some(top_k), chunk, ..self.shape() })
    }

    fn varlen(&self) -> anyhow::Result<Record> {
        let Case { nq, nd, lq, ld, dim, ragged, dtype, .. } = *self.case;
        let q = self.inputs().packed(0, nq, lq, dim, None, dtype)?;
        let d = self.inputs().packed(1, nd, ld, dim, ragged, dtype)?;
        let corpus = self.upload(&d)?;
        let op = Forward::maxsim(q.tokens()?, documents(&d, corpus.as_ref())?, self.options());
        self.measure(&Op::Forward(op), dtype, self.shape())
    }

    fn score_pairs(&self) -> anyhow::Result<Record> {
        let Case { nq, nd, lq, ld, dim, ragged, dtype, pairs, .. } = *self.case;
        let q = self.inputs().packed(0, nq, lq, dim, None, dtype)?;
        let d = self.inputs().packed(1, nd, ld, dim, ragged, dtype)?;
        let corpus = self.upload(&d)?;
        let (q_idx, d_idx) = (self.inputs().indices(2, pairs, nq), self.inputs().indices(3, pairs, nd));
        let op =
            Forward::score_pairs(q.tokens()?, documents(&d, corpus.as_ref())?, q_idx, d_idx, self.options())?;
        self.measure(&Op::Forward(op), dtype, Shape { pairs: Some(pairs), ..self.shape() })
    }

    fn forward_backward(&self) -> anyhow::Result<Record> {
        let Case { nq, nd, lq, ld, dim, k_docs, ragged, dtype, .. } = *self.case;
        let q = self.inputs().padded(0, &[nq, lq, dim], None, dtype)?;
        let d = match k_docs {
            None => self.inputs().padded(1, &[nd, ld, dim], ragged, dtype)?,
            Some(k) => self.inputs().padded(1, &[nq, k, ld, dim], ragged, dtype)?,
        };
        let nd = k_docs.map_or(nd, |k| nq * k);
        let forward = Forward::maxsim(q.tokens()?, d.tokens()?, self.options().with_argmax());
        let grad = self.inputs().gaussians(4, forward.pair_count())?;
        // The winners of the forward pass are handed on, as training does.
        let none = forward.empty_argmax();
        let method = self.case.method;
        let forward_op = Op::Forward(forward.clone());
        let mut plan = self.engine.explain(&forward_op)?;
        let backward_plan = self.engine.explain(&backward(&forward, &grad, &none, method))?;
        plan.kernel = format!("{} + {}", plan.kernel, backward_plan.kernel);
        let (there, back) = (forward_op.cost(), backward(&forward, &grad, &none, method).cost());
        let cost = Cost { flops: there.flops + back.flops, bytes: there.bytes + back.bytes };
        let run = || {
            let scores = self.engine.run(&forward_op)?;
            let Output::Scores(Scores { argmax: Some(argmax), .. }) = &scores else {
                unreachable!("winners were asked for")
            };
            let gradients = self.engine.run(&backward(&forward, &grad, argmax, method))?;
            Ok(vec![scores, gradients])
        };
        self.time(&plan, cost, run, dtype, Shape { nd, k_docs, ..self.shape() })
    }

    fn head(&self) -> anyhow::Result<Record> {
        let Case { nq, nd, lq, ld, dim, d_model, ragged, dtype, .. } = *self.case;
        let q = self.inputs().padded(0, &[nq, lq, dim], None, dtype)?;
        let h = self.inputs().padded(1, &[nd, ld, d_model], ragged, dtype)?;
        let w = self.inputs().padded(2, &[dim, d_model], None, dtype)?;
        let w = TensorRef::new(&w.data, &[dim, d_model])?;
        let mut op = FromHidden::new(q.tokens()?, h.tokens()?, w, None);
        op.options = self.options();
        self.measure(&Op::FromHidden(op), dtype, Shape { d_model: Some(d_model), ..self.shape() })
    }

    fn residual(&self) -> anyhow::Result<Record> {
        let Case { nq, nd, lq, ld, dim, centroids, nbits, ragged, dtype, .. } = *self.case;
        let q = self.inputs().padded(0, &[nq, lq, dim], None, dtype)?;
        let table = self.inputs().padded(1, &[centroids, dim], None, dtype)?;
        let offsets = self.inputs().offsets(2, nd, ragged.unwrap_or(ld), ld)?;
        let tokens = offsets[nd] as usize;
        let codes = self.inputs().indices(3, tokens, centroids);
        let buckets = 1usize << nbits;
        // Residuals of unit vectors have about this size; evenly spaced buckets cost what any others do.
        let weights: Vec<f32> =
            (0..buckets).map(|b| 0.1 * ((2 * b + 1) as f32 / buckets as f32 - 1.0)).collect();
        let table = TensorRef::new(&table.data, &[centroids, dim])?;
        let codec = Codec::new(table, weights, nbits, ResidualLayout::Plaid)?;
        let residuals = self.inputs().bytes(4, tokens * codec.residual_bytes());
        let documents = Residual::packed(codec, &codes, &residuals, &offsets)?;
        let corpus = match self.case.resident {
            true => Some(self.engine.residual_corpus(documents.clone())?),
            false => None,
        };
        let documents = corpus.as_ref().map_or(Documents::Residual(documents), Corpus::documents);
        let op = Forward::maxsim(q.tokens()?, documents, self.options());
        let shape = Shape { centroids: Some(centroids), nbits: Some(nbits), ..self.shape() };
        self.measure(&Op::Forward(op), dtype, shape)
    }

    fn approx(&self) -> anyhow::Result<Record> {
        let Case { nd, lq, ld, centroids, ragged, dtype, .. } = *self.case;
        let table = self.inputs().padded(0, &[centroids, lq], None, dtype)?;
        let offsets = self.inputs().offsets(2, nd, ragged.unwrap_or(ld), ld)?;
        let codes = self.inputs().indices(3, offsets[nd] as usize, centroids);
        let table = TensorRef::new(&table.data, &[centroids, lq])?;
        let op = ApproxScore::packed(table, &codes, &offsets)?;
        self.measure(&Op::ApproxScore(op), dtype, Shape { centroids: Some(centroids), ..self.shape() })
    }

    /// Times one operator.
    fn measure(&self, op: &Op<'_>, dtype: DType, shape: Shape) -> anyhow::Result<Record> {
        let plan = self.engine.explain(op)?;
        self.time(&plan, op.cost(), || Ok(vec![self.engine.run(op)?]), dtype, shape)
    }

    /// Warms up, times.
    fn time(
        &self,
        plan: &Plan,
        cost: Cost,
        run: impl Fn() -> maxsim::Result<Vec<Output>>,
        dtype: DType,
        shape: Shape,
    ) -> anyhow::Result<Record> {
        let start = Instant::now();
        let warm_up = run()?;
        let once = start.elapsed();
        let result_bytes: usize = warm_up.iter().map(result_bytes).sum();
        drop(warm_up);

        let reps = self.case.reps.unwrap_or_else(|| {
            let fit = 1.0 / once.as_secs_f64().max(1e-6);
            (fit as usize).clamp(3, 100)
        });
        let mut times = Vec::with_capacity(reps);
        let mut gpu_times = Vec::with_capacity(reps);
        self.engine.device_time();
        let mut peak = 0;
        for _ in 0..reps {
            let start = Instant::now();
            let (output, peak_here) = alloc::peak_during(&run);
            times.push(start.elapsed().as_secs_f64() * 1e6);
            gpu_times.extend(self.engine.device_time().map(|time| time.as_secs_f64() * 1e6));
            peak = peak.max(peak_here);
            std::hint::black_box(output?);
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0
        };
        let wall_us = median(&mut times);
        let gpu_us = (!gpu_times.is_empty()).then(|| median(&mut gpu_times));

        let info = self.engine.info();
        let machine = (plan.backend == maxsim::BackendKind::Cpu).then(|| floor::measure(info.threads));
        Ok(Record {
            op: self.case.op.name().into(),
            shape,
            dtype: dtype.name().into(),
            backend: plan.backend.name().into(),
            device: info.device.clone(),
            kernel: plan.kernel.clone(),
            normalize: self.case.normalize,
            precision: format!("{:?}", self.case.precision).to_lowercase(),
            threads: info.threads,
            reps,
            gpu_us,
            wall_us,
            min_us: times[0],
            gflops: cost.flops as f64 / wall_us / 1e3,
            peak_bytes: peak.saturating_sub(result_bytes) as u64,
            floor_us: machine.map(|machine| machine.floor_us(cost)),
            machine,
        })
    }
}

fn documents<'a>(side: &'a Operand, corpus: Option<&'a Corpus>) -> anyhow::Result<Documents<'a>> {
    Ok(match corpus {
        Some(corpus) => corpus.documents(),
        None => side.tokens()?.into(),
    })
}

fn backward<'a>(
    forward: &Forward<'a>,
    grad: &'a [f32],
    argmax: &'a Argmax,
    method: BackwardMethod,
) -> Op<'a> {
    Op::Backward(Backward { argmax: Some(argmax), method, ..Backward::new(forward.clone(), grad) })
}

/// Bytes of what the caller gets.
fn result_bytes(output: &Output) -> usize {
    let argmax = |argmax: &Option<Argmax>| argmax.as_ref().map_or(0, |a| 4 * a.values.len());
    match output {
        Output::Scores(scores) => 4 * scores.values.len() + argmax(&scores.argmax),
        Output::Gradients(Gradients { q, d, h, w, b }) => {
            [q, d, h, w, b].into_iter().flatten().map(|t| t.data().len() * t.dtype().size()).sum()
        }
        Output::TopK(hits) => 4 * hits.scores.len() + 4 * hits.indices.len() + argmax(&hits.argmax),
        _ => 0,
    }
}
