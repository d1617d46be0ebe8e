//! CUDA as a [`Backend`].

use std::collections::BTreeMap;
use std::sync::Arc;

use maxsim_core::plaid::Segment;
use maxsim_core::{
    Argmax, Backend, BackendInfo, BackendKind, Cancel, Codec, DType, DataBuf, Documents, Forward, FromHidden,
    Hit, IndexMeta, Op, Options, Output, Pairing, PlaidHits, PlaidIndex, PlaidSearch, Plan, Resident,
    ResidentIndex, ResidentMeta, Result, Retrieve, Scales, Scores, Submission, Tokens, TopK,
};

use crate::approx::approx_score;
use crate::arch::Path;
use crate::backward::backward;
use crate::context::Context;
use crate::device::{Device, Mark, Reading};
use crate::driver::{self, Driver};
use crate::forward::{Scoring, may_be_empty, score};
use crate::head::{from_hidden, from_hidden_backward};
use crate::memory::Buffer;
use crate::operands::Held;
use crate::plaid::{Course, Found, Index, plaid_search, scoring};
use crate::plan::{plan, unsupported};
use crate::retrieve::{is_absent, results, retrieve, score_of};
use crate::tuning::{Entry, ShapeClass, Table};

/// How to set a GPU up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CudaOptions {
    /// Which GPU, as the driver counts them.
    pub device: usize,
    /// Kernels to use; `None`: `MAXSIM_CUDA_ARCH`, else the best for the GPU.
    pub path: Option<Path>,
    /// Device memory that may be used, in bytes; `None`: all of it.
    pub budget: Option<u64>,
}

/// How long an operator takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// Microseconds of the GPU's work without copies: replays of a graph with the second-level cache flushed before each.
    pub gpu_us: Vec<f64>,
    /// The same with the cache full of lines that were only read. The flush leaves written ones, and a kernel that streams memory
    /// waits for as much to be written back as the cache holds.
    pub gpu_clean_us: Vec<f64>,
    /// Microseconds of whole calls on the host, inputs that are not resident and results included.
    pub wall_us: Vec<f64>,
    /// Most bytes of device memory beside what was there before.
    pub peak_bytes: u64,
    /// Launches and fills.
    pub launches: usize,
}

/// `tokens` with `scales` if they are quantised.
fn scaled<'a>(tokens: Tokens<'a>, scales: &'a [f32]) -> Result<Tokens<'a>> {
    match tokens.dtype().is_quantized() {
        true => tokens.with_scales(Scales::PerToken(scales)),
        false => Ok(tokens),
    }
}

/// How long whole calls are measured: long ones a few times only.
const WALL: std::time::Duration = std::time::Duration::from_secs(2);

/// Scores on an NVIDIA GPU.
pub struct CudaBackend {
    pub(crate) context: Arc<Context>,
    info: BackendInfo,
}

/// Work given to the queue: what is read back, and what is made of it once that is there.
pub(crate) struct Started {
    readings: Vec<Reading>,
    make: Make,
}

/// Makes the result of what was read back; again, if it was read again.
type Make = Box<dyn Fn() -> Result<Output> + Send + Sync>;

impl Started {
    fn done(output: Output) -> Self {
        Self { readings: vec![], make: Box::new(move || Ok(output.clone())) }
    }

    fn new(readings: Vec<Reading>, make: impl Fn() -> Result<Output> + Send + Sync + 'static) -> Self {
        Self { readings, make: Box::new(make) }
    }

    /// What was computed; everything it is made of has arrived.
    pub(crate) fn output(&self) -> Result<Output> {
        (self.make)()
    }

    fn finish(self) -> Result<Output> {
        self.readings.iter().try_for_each(|reading| reading.block())?;
        self.output()
    }

    fn submission(self) -> Submission {
        Submission::pending(Box::pin(async move { self.finish() }))
    }
}

/// A point in a backend's queue: [`CudaBackend::event`].
pub struct Event(Box<dyn Mark>);

impl Event {
    pub(crate) fn of(context: &Context) -> Result<Self> {
        context.pool.device().mark().map(Self)
    }

    /// Waits for everything that was given to the backend before it.
    ///
    /// # Errors
    /// `ERR_DEVICE_LOST` where that failed.
    pub fn wait(&self) -> Result<()> {
        self.0.block()
    }

    /// Whether everything that was given to the backend before it is over.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn is_over(&self) -> Result<bool> {
        self.0.is_over()
    }

    /// The driver's `CUevent`, for those who let a stream of theirs wait for it while this is alive.
    pub fn raw(&self) -> u64 {
        self.0.raw()
    }
}

impl CudaBackend {
    /// Sets up a GPU.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` naming what is missing (driver, NVRTC, a GPU, a GPU that is new enough), `ERR_VALUE` for a GPU that
    /// is not there or a bad `MAXSIM_CUDA_ARCH`.
    pub fn new(options: CudaOptions) -> Result<Self> {
        Self::with_table(options, None)
    }

    /// The same with a tuning table of the caller's; `None`: that of `MAXSIM_CUDA_TUNING`, else the committed one of the GPU.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_table(options: CudaOptions, table: Option<Table>) -> Result<Self> {
        let path = match (options.path, std::env::var("MAXSIM_CUDA_ARCH")) {
            (None, Ok(name)) if !name.is_empty() => Some(name.parse()?),
            (path, _) => path,
        };
        Ok(Self::on(Arc::new(Driver::new(options.device, path, table)?), options.budget))
    }

    /// GPUs that the driver sees.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` without a driver.
    pub fn device_count() -> Result<usize> {
        driver::count()
    }

    /// Runs the kernels of `path` on the host, for tests; `folder` keeps what was compiled.
    #[cfg(feature = "emulator")]
    pub fn emulated(path: Path, folder: &std::path::Path) -> Self {
        Self::emulated_with(path, folder, Table::default())
    }

    /// The same with a tuning table.
    #[cfg(feature = "emulator")]
    pub fn emulated_with(path: Path, folder: &std::path::Path, table: Table) -> Self {
        Self::on(crate::emulator::Emulator::new(path, folder, table), None)
    }

    pub(crate) fn on(device: Arc<dyn Device>, budget: Option<u64>) -> Self {
        let caps = device.caps();
        let path = caps.arch.path;
        let info = BackendInfo {
            kind: BackendKind::Cuda,
            device: caps.name.clone(),
            level: path.name().into(),
            levels: Path::ALL.iter().filter(|p| **p <= path).map(|p| p.name().into()).collect(),
            threads: 0,
        };
        Self { context: Arc::new(Context::new(device, budget)), info }
    }

    /// Bytes of device memory in use, and the most that ever were.
    pub fn memory(&self) -> (u64, u64) {
        self.context.pool.used()
    }

    /// Kernels compiled or loaded so far.
    pub fn kernels_loaded(&self) -> usize {
        self.context.loaded()
    }

    /// Runs `op`, which has to be valid, again and again and says how long it takes. Nothing else may use this backend
    /// meanwhile.
    ///
    /// # Errors
    /// Those of running `op`.
    pub fn measure(&self, op: &Op<'_>, repeats: usize) -> Result<Measurement> {
        // Compiled, uploaded, and everything that is computed only once.
        let run = || self.start(op, &Cancel::new())?.finish();
        run()?;
        self.context.pool.reset_peak();
        let before = self.memory().0;
        let mut wall_us = Vec::with_capacity(repeats);
        let begun = std::time::Instant::now();
        while wall_us.len() < repeats && (wall_us.len() < 3 || begun.elapsed() < WALL) {
            let started = std::time::Instant::now();
            run()?;
            wall_us.push(started.elapsed().as_secs_f64() * 1e6);
        }
        let peak_bytes = self.memory().1 - before;
        let (gpu_us, launches) = self.context.time(repeats, false, run)?;
        let (gpu_clean_us, _) = self.context.time(repeats, true, run)?;
        let numbers = |us: Vec<f32>| us.into_iter().map(f64::from).collect();
        let (gpu_us, gpu_clean_us) = (numbers(gpu_us), numbers(gpu_clean_us));
        Ok(Measurement { gpu_us, gpu_clean_us, wall_us, peak_bytes, launches })
    }

    /// Measures every tile that scoring shapes of `class` can have, each on a backend that `make` sets up with a table, and returns the
    /// times: `documents` documents of `length` tokens, resident.
    ///
    /// # Errors
    /// `ERR_VALUE` for types that are none, and those of running.
    pub fn tune(
        make: &dyn Fn(Table) -> Result<Self>,
        class: &ShapeClass,
        documents: usize,
        length: usize,
        repeats: usize,
    ) -> Result<Entry> {
        let [q_dtype, d_dtype] = class.dtypes()?;
        let dim = class.dim as usize;
        // Queries of 32 tokens, as many as fill the class.
        let queries = (class.rows as usize / 32).max(1);
        let q_length = class.rows.min(32) as usize;
        let values = |rows: usize| -> Vec<f32> {
            // Numbers of a fixed generator; what they are does not matter for time, that they differ might.
            let mut state = 0x9e37_79b9_u32;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            };
            (0..rows * dim).map(|_| next()).collect()
        };
        let q = DataBuf::from_f32(&values(queries * q_length), q_dtype);
        let d = DataBuf::from_f32(&values(documents * length), d_dtype);
        let q_scales = vec![1.0; queries * q_length];
        let d_scales = vec![1.0; documents * length];
        let q = scaled(Tokens::padded(&q, &[queries, q_length, dim])?, &q_scales)?;
        let d = scaled(Tokens::padded(&d, &[documents, length, dim])?, &d_scales)?;
        let normalize = class.scaled && !d.dtype().is_quantized();
        let options = Options { normalize, argmax: class.argmax, ..Options::default() };
        let plain = make(Table::default())?;
        let mut microseconds = BTreeMap::new();
        for tile in class.candidates(plain.context.caps())? {
            let entry = Entry { class: class.clone(), tile, microseconds: BTreeMap::new() };
            let mut table = Table::default();
            table.entries.push(entry);
            let backend = make(table)?;
            let resident = backend.upload(&Documents::Tokens(d.clone()), false)?;
            let op = Op::Forward(Forward::maxsim(q.clone(), &resident, options));
            let mut times = backend.measure(&op, repeats)?.gpu_us;
            times.sort_by(f64::total_cmp);
            microseconds.insert(tile, times[times.len() / 2]);
        }
        let (&tile, _) =
            microseconds.iter().min_by(|a, b| a.1.total_cmp(b.1)).expect("there is always a tile");
        Ok(Entry { class: class.clone(), tile, microseconds })
    }

    /// Starts all of `ops` and waits once, for the last.
    ///
    /// # Errors
    /// Those of validation and of the operators; then none has a result.
    pub fn batch(&self, ops: &[Op<'_>]) -> Result<Vec<Output>> {
        ops.iter().try_for_each(Op::validate)?;
        let cancel = Cancel::new();
        let started = ops.iter().map(|op| self.start(op, &cancel)).collect::<Result<Vec<_>>>()?;
        self.event()?.wait()?;
        started.iter().map(Started::output).collect()
    }

    /// A point behind everything that was given to this backend so far.
    ///
    /// # Errors
    /// The driver's.
    pub fn event(&self) -> Result<Event> {
        Event::of(&self.context)
    }

    /// What this backend is given from now on waits for what `stream` (a `CUstream`) was given so far.
    ///
    /// # Safety
    /// `stream` is a stream of this backend's GPU and its primary context, or null, the default stream.
    ///
    /// # Errors
    /// The driver's.
    pub unsafe fn wait_for_stream(&self, stream: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.context.pool.device().wait_for(stream) }
    }

    /// What `stream` (a `CUstream`) is given from now on waits for what this backend was given so far.
    ///
    /// # Safety
    /// As [`wait_for_stream`](Self::wait_for_stream).
    ///
    /// # Errors
    /// The driver's.
    pub unsafe fn make_stream_wait(&self, stream: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.context.pool.device().make_wait(stream) }
    }

    pub(crate) fn start(&self, op: &Op<'_>, cancel: &Cancel) -> Result<Started> {
        match op {
            Op::Forward(op) => self.forward(op),
            Op::Backward(op) => {
                let held = open(&self.context, &op.forward.d)?;
                let arriving = backward(&self.context, op, &held)?;
                let returned = [&arriving.q, &arriving.d].into_iter().flatten();
                let readings = returned.filter_map(|returned| returned.pending.clone()).collect();
                Ok(Started::new(readings, move || Ok(Output::Gradients(arriving.finish()))))
            }
            Op::Retrieve(op) => self.retrieve(op),
            Op::FromHidden(op) => self.head(op),
            Op::FromHiddenBackward(op) => {
                let arriving = from_hidden_backward(&self.context, op)?;
                Ok(Started::new(arriving.readings(), move || Ok(Output::Gradients(arriving.finish()))))
            }
            Op::ApproxScore(op) => {
                let count = op.sequences().count();
                let scores = approx_score(&self.context, op)?.read(count * 4)?;
                Ok(Started::new(vec![scores.clone()], move || {
                    let (values, shape) = (cast(scores.bytes()), vec![count]);
                    Ok(Output::Scores(Scores { values, shape, argmax: None }))
                }))
            }
            Op::PlaidSearch(op) => self.search(op, cancel),
            other => Err(unsupported(other)),
        }
    }

    fn search(&self, op: &PlaidSearch<'_>, cancel: &Cancel) -> Result<Started> {
        let (width, count) = (Course::of(op).width, op.q.count());
        if count * width == 0 {
            return Ok(Started::done(Output::Hits(vec![Vec::new(); count].into())));
        }
        let uploaded;
        let index = match &op.index {
            PlaidIndex::Host { codec, segments } => {
                uploaded = Index::upload(&self.context, codec, segments)?;
                &uploaded
            }
            PlaidIndex::Resident(resident) => resident.handle::<Index>()?,
        };
        let q = op.q.clone().flattened();
        let found = plaid_search(&self.context, op, &q, index, cancel)?;
        let readings: Vec<Reading> =
            found.iter().flat_map(|f| [Some(&f.hits), f.chosen.as_ref()]).flatten().cloned().collect();
        let options = op.options;
        let hits = move || -> PlaidHits {
            let mut hits: Vec<Vec<Hit>> = Vec::with_capacity(count);
            let mut unsettled = Vec::new();
            for Found { group, hits: keys, chosen } in &found {
                let mut keys: Vec<u64> = cast(keys.bytes());
                hits.extend(keys.chunks_exact_mut(width).map(|keys| {
                    // Many are not sorted on the device.
                    keys.sort_unstable();
                    let keys = keys.iter().filter(|key| !is_absent(**key));
                    let hit = |&key: &u64| Hit {
                        document: key as u32,
                        score: score_of(key, true),
                        winners: Vec::new(),
                    };
                    keys.map(hit).collect()
                }));
                let Some(chosen) = chosen else { continue };
                let mut chosen: Vec<u64> = cast(chosen.bytes());
                let each = chosen.len() / group.len();
                for (query, chosen) in group.clone().zip(chosen.chunks_exact_mut(each)) {
                    chosen.sort_unstable();
                    let scored = chosen.partition_point(|key| !is_absent(*key));
                    let front = &chosen[..scored / 4];
                    let hits = hits[query as usize].iter();
                    let behind = hits.filter(|hit| !front.iter().any(|&key| key as u32 == hit.document));
                    if !options.settles(behind.count()) {
                        unsettled.push(query);
                    }
                }
            }
            PlaidHits { hits, unsettled }
        };
        if !op.options.explain {
            return Ok(Started::new(readings, move || Ok(Output::Hits(hits()))));
        }
        // Which pairs to explain is known only once the hits are here.
        readings.iter().try_for_each(|reading| reading.block())?;
        let PlaidHits { mut hits, unsettled } = hits();
        let (queries, documents): (Vec<u32>, Vec<u32>) =
            (0u32..).zip(&hits).flat_map(|(i, hits)| hits.iter().map(move |hit| (i, hit.document))).unzip();
        let options = Options { argmax: true, ..Options::default() };
        // Scores and winners are laid out by queries alone; any documents will do.
        let others = Documents::Tokens(q.clone());
        let mut pairs = Forward::score_pairs(q.clone(), others, queries.clone(), queries.clone(), options)?;
        pairs.pairing = Pairing::List { q: queries.into(), d: documents.into() };
        let scoring = scoring(&pairs.q, &index.held, &pairs.pairing, op.options.normalize);
        let explained =
            self.scores(&pairs, |scores, argmax| score(&self.context, &scoring, scores, argmax))?;
        let Output::Scores(Scores { argmax: Some(argmax), .. }) = explained.finish()? else {
            unreachable!("scores with winners were asked for")
        };
        for (pair, hit) in hits.iter_mut().flatten().enumerate() {
            hit.winners = argmax.pair(pair).to_vec();
        }
        Ok(Started::done(Output::Hits(PlaidHits { hits, unsettled })))
    }

    fn retrieve(&self, op: &Retrieve<'_>) -> Result<Started> {
        let (shape, width, largest) = (op.output_shape(), op.width(), op.options.largest);
        if op.forward.q.count() * width == 0 {
            let mut empty = results(shape, 0, largest, vec![]);
            if op.forward.options.argmax {
                empty.argmax = self.explain(op, &empty)?;
            }
            return Ok(Started::done(Output::TopK(empty)));
        }
        let held = open(&self.context, &op.forward.d)?;
        let keys = retrieve(&self.context, op, &held)?;
        if op.forward.options.argmax {
            // Which pairs to explain is known only once the hits are here.
            keys.block()?;
            let mut top_k = results(shape, width, largest, cast(keys.bytes()));
            top_k.argmax = self.explain(op, &top_k)?;
            return Ok(Started::done(Output::TopK(top_k)));
        }
        Ok(Started::new(vec![keys.clone()], move || {
            Ok(Output::TopK(results(shape.clone(), width, largest, cast(keys.bytes()))))
        }))
    }

    /// Winners of every hit, by scoring just the hits again.
    fn explain(&self, op: &Retrieve<'_>, hits: &TopK) -> Result<Option<Argmax>> {
        let q_idx: Vec<u32> =
            (0..op.forward.q.count() as u32).flat_map(|i| std::iter::repeat_n(i, op.width())).collect();
        let (q, d) = (op.forward.q.clone(), op.forward.d.clone());
        let pairs = Forward::score_pairs(q, d, q_idx, hits.indices.clone(), op.forward.options)?;
        match self.forward(&pairs)?.finish()? {
            Output::Scores(scores) => Ok(scores.argmax),
            other => unreachable!("forward returned {other:?}"),
        }
    }

    fn forward(&self, op: &Forward<'_>) -> Result<Started> {
        let held = open(&self.context, &op.d)?;
        self.scores(op, |scores, argmax| score(&self.context, &Scoring::of(op, &held), scores, argmax))
    }

    fn head(&self, op: &FromHidden<'_>) -> Result<Started> {
        self.scores(&op.scoring(), |scores, argmax| from_hidden(&self.context, op, scores, argmax))
    }

    /// Scores, and winners if asked for, that `compute` puts into buffers.
    fn scores(
        &self,
        op: &Forward<'_>,
        compute: impl FnOnce(&Buffer, Winners<'_>) -> Result<()>,
    ) -> Result<Started> {
        let scores = self.context.pool.buffer(op.pair_count() * 4)?;
        zero_if_empty(op, &scores)?;
        let layout = op.options.argmax.then(|| op.empty_argmax());
        let argmax = layout.as_ref().map(|layout| winners(&self.context, layout)).transpose()?;
        let first = |pair: usize| layout.as_ref().map_or(0, |layout| layout.range(pair).start);
        compute(&scores, argmax.as_ref().map(|a| (a, &first as &dyn Fn(usize) -> usize)))?;
        let scores = scores.read(op.pair_count() * 4)?;
        let argmax = argmax.map(|argmax| argmax.read(argmax.bytes())).transpose()?;
        let shape = op.output_shape();
        let readings = [Some(scores.clone()), argmax.clone()].into_iter().flatten().collect();
        Ok(Started::new(readings, move || {
            let argmax = layout.as_ref().zip(argmax.as_ref()).map(|(layout, argmax)| {
                let mut winners = layout.clone();
                winners.values = cast(argmax.bytes());
                winners
            });
            Ok(Output::Scores(Scores { values: cast(scores.bytes()), shape: shape.clone(), argmax }))
        }))
    }
}

/// A buffer for winners, and where a pair's begin.
type Winners<'a> = Option<(&'a Buffer, &'a dyn Fn(usize) -> usize)>;

/// Scores that nothing writes are 0.
pub(crate) fn zero_if_empty(op: &Forward<'_>, scores: &Buffer) -> Result<()> {
    if may_be_empty(&op.q) { scores.fill(0) } else { Ok(()) }
}

/// A buffer for winners, −1 everywhere.
fn winners(context: &Context, layout: &Argmax) -> Result<Buffer> {
    let buffer = context.pool.buffer(layout.values.len() * 4)?;
    buffer.fill(0xff)?;
    Ok(buffer)
}

fn cast<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// Documents on the device, uploaded if they are not there yet.
pub(crate) fn open<'a>(context: &Context, documents: &'a Documents<'_>) -> Result<Opened<'a>> {
    match documents {
        Documents::Resident(resident) => Ok(Opened::Resident(resident.handle()?)),
        host => Ok(Opened::Uploaded(Box::new(Held::new(context, host, false)?))),
    }
}

/// Documents of an operator.
pub(crate) enum Opened<'a> {
    Resident(&'a Held),
    Uploaded(Box<Held>),
}

impl std::ops::Deref for Opened<'_> {
    type Target = Held;

    fn deref(&self) -> &Held {
        match self {
            Self::Resident(held) => held,
            Self::Uploaded(held) => held,
        }
    }
}

impl Backend for CudaBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn plan(&self, op: &Op<'_>) -> Result<Plan> {
        plan(self.context.caps(), op)
    }

    fn tuning(&self) -> Option<String> {
        let caps = self.context.caps();
        Some(caps.tuning.named(&caps.name).text())
    }

    fn upload(&self, documents: &Documents<'_>, normalized: bool) -> Result<Resident> {
        if let Documents::Resident(resident) = documents {
            return Ok((*resident).clone());
        }
        let held = Held::new(&self.context, documents, normalized)?;
        let mut meta = ResidentMeta::of(documents, BackendKind::Cuda, normalized);
        meta.bytes = held.bytes();
        Ok(Resident::new(meta, held))
    }

    fn upload_as(&self, documents: &Tokens<'_>, normalize: bool, storage: DType) -> Option<Result<Resident>> {
        Some(self.convert(documents, normalize, storage))
    }

    fn upload_index(&self, codec: &Codec<'_>, segments: &[&Segment]) -> Result<ResidentIndex> {
        let index = Index::upload(&self.context, codec, segments)?;
        let mut meta = IndexMeta::of(codec, segments, BackendKind::Cuda);
        meta.bytes = index.bytes();
        Ok(ResidentIndex::new(meta, index))
    }

    fn submit(&self, op: &Op<'_>, cancel: &Cancel) -> Submission {
        match cancel.check().and_then(|()| self.start(op, cancel)) {
            Ok(started) => started.submission(),
            Err(error) => Submission::ready(Err(error)),
        }
    }
}
