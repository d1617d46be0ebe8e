//! What callers do beside single calls: graphs, batches, memory and streams of their own, conversion on the device, sharding.
//! Run by the emulator's tests and, on a machine with a GPU, by `hardware`.

use std::sync::Arc;

use maxsim_core::{
    ApproxScore, Backend, Backward, Corpus, CorpusOptions, DType, DataBuf, Documents, Engine, Forward,
    FromHidden, FromHiddenBackward, Op, Options, Output, Retrieve, RetrieveOptions, SearchOptions, Tensor,
    TensorRef, Tokens,
};
use maxsim_cuda::{CudaBackend, DeviceMemory, GradientsInto, ShardedBackend};
use maxsim_testkit::cases::Random;

/// Tokens of queries and documents.
pub(crate) struct Data {
    q: DataBuf,
    other_q: DataBuf,
    d: DataBuf,
    dim: usize,
}

const QUERIES: [usize; 2] = [3, 9];
const DOCUMENTS: [usize; 2] = [7, 20];
const LENGTHS: [u32; 7] = [20, 1, 0, 13, 20, 7, 16];

impl Data {
    fn new(name: &str, dim: usize, dtype: DType) -> Self {
        let mut random = Random::named(name);
        let mut values = |[n, l]: [usize; 2]| {
            let values: Vec<f32> = (0..n * l * dim).map(|_| random.normal()).collect();
            DataBuf::from_f32(&values, dtype)
        };
        Self { q: values(QUERIES), other_q: values(QUERIES), d: values(DOCUMENTS), dim }
    }

    fn q(&self) -> Tokens<'_> {
        Tokens::padded(&self.q, &[QUERIES[0], QUERIES[1], self.dim]).unwrap()
    }

    fn other_q(&self) -> Tokens<'_> {
        Tokens::padded(&self.other_q, &[QUERIES[0], QUERIES[1], self.dim]).unwrap()
    }

    fn d(&self) -> Tokens<'_> {
        let tokens = Tokens::padded(&self.d, &[DOCUMENTS[0], DOCUMENTS[1], self.dim]).unwrap();
        tokens.with_lengths(&LENGTHS[..]).unwrap()
    }
}

fn run(backend: &CudaBackend, op: &Op<'_>) -> Output {
    op.validate().unwrap();
    backend.submit(op, &Default::default()).wait().unwrap()
}

fn bytes(data: &DataBuf) -> Vec<u8> {
    maxsim_core::dispatch!(DataBuf, data, |data| bytemuck::cast_slice(data).to_vec())
}

/// Every operator, captured and replayed, gives the bits of a call; with other queries, those of a call with them.
pub(crate) fn graphs(backend: &CudaBackend) {
    let data = Data::new("graphs", 32, DType::F16);
    let resident = backend.upload(&Documents::Tokens(data.d()), false).unwrap();
    let grad = vec![0.5f32; QUERIES[0] * DOCUMENTS[0]];
    let hidden = Data::new("hidden", 48, DType::F16);
    let weights: Vec<f32> = (0..32 * 48).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect();
    let head = |q| {
        let w = TensorRef::new(&weights, &[32, 48]).unwrap();
        FromHidden::new(q, hidden.d(), w, None)
    };
    let table: Vec<f32> = (0..50 * 9).map(|i| (i * 31 % 97) as f32 / 97.0).collect();
    let codes: Vec<u32> = (0..60).map(|i| i * 7 % 50).collect();
    let options = Options { normalize: true, argmax: true, ..Options::default() };
    type Make<'a> = Box<dyn Fn(Tokens<'a>) -> Op<'a> + 'a>;
    let ops: Vec<(&str, Make<'_>, bool)> = vec![
        ("forward", Box::new(|q| Op::Forward(Forward::maxsim(q, &resident, Options::default()))), true),
        ("winners", Box::new(|q| Op::Forward(Forward::maxsim(q, &resident, options))), true),
        ("host documents", Box::new(|q| Op::Forward(Forward::maxsim(q, data.d(), options))), true),
        (
            "list",
            Box::new(|q| {
                let (i, j) = (vec![2u32, 0, 1, 2], vec![6u32, 0, 5, 1]);
                Op::Forward(Forward::score_pairs(q, &resident, i, j, Options::default()).unwrap())
            }),
            true,
        ),
        (
            "retrieve",
            Box::new(|q| Op::Retrieve(Retrieve::new(q, &resident, RetrieveOptions::top_k(3)))),
            true,
        ),
        (
            "backward",
            Box::new(|q| {
                let forward = Forward::maxsim(q, data.d(), Options::normalized());
                Op::Backward(Backward::new(forward, &grad))
            }),
            true,
        ),
        ("head", Box::new(|q| Op::FromHidden(head(q))), false),
        (
            "head backward",
            Box::new(|q| Op::FromHiddenBackward(FromHiddenBackward::new(head(q), &grad))),
            false,
        ),
        (
            "approx",
            Box::new(|_| {
                let table = TensorRef::new(&table, &[50, 9]).unwrap();
                Op::ApproxScore(ApproxScore::packed(table, codes.clone(), vec![0u32, 20, 20, 60]).unwrap())
            }),
            false,
        ),
    ];
    let held = backend.memory().0;
    for (name, op, replaceable) in &ops {
        let expected = run(backend, &op(data.q()));
        let mut graph = backend.capture(&op(data.q())).unwrap();
        assert_eq!(graph.read().unwrap(), expected, "{name}: the captured call itself");
        assert!(graph.steps() > 1, "{name}");
        // Other work in between finds other memory.
        let others = run(backend, &op(data.other_q()));
        for _ in 0..3 {
            assert_eq!(graph.replay().unwrap(), expected, "{name}: a replay");
        }
        if *replaceable {
            graph.set_queries(&data.other_q()).unwrap();
            assert_eq!(graph.replay().unwrap(), others, "{name}: with other queries");
            let short = Tokens::padded(&data.q, &[QUERIES[0] * QUERIES[1], data.dim]).unwrap();
            assert_eq!(graph.set_queries(&short).unwrap_err().code().as_str(), "ERR_SHAPE");
        } else {
            assert_eq!(graph.set_queries(&data.other_q()).unwrap_err().code().as_str(), "ERR_UNSUPPORTED");
        }
        // SAFETY: the default stream is one.
        unsafe { graph.launch_on(0) }.unwrap();
        graph.read().unwrap();
    }
    assert!(backend.memory().0 <= held + (4 << 20), "graphs keep their memory no longer than they live");
    let explained = RetrieveOptions { scoring: options, ..RetrieveOptions::top_k(3) };
    let refused = backend.capture(&Op::Retrieve(Retrieve::new(data.q(), &resident, explained)));
    assert_eq!(refused.err().unwrap().code().as_str(), "ERR_UNSUPPORTED");
    // A graph outlives the handle of the documents it scores.
    let mut graph =
        backend.capture(&Op::Forward(Forward::maxsim(data.q(), &resident, Options::default()))).unwrap();
    let expected = graph.read().unwrap();
    drop(ops);
    drop(resident);
    assert_eq!(graph.replay().unwrap(), expected);
}

/// A batch gives what single calls give, events tell when it is over, and a bad operator of a batch is an error.
pub(crate) fn batches(backend: &CudaBackend) {
    let data = Data::new("batches", 16, DType::BF16);
    let resident = backend.upload(&Documents::Tokens(data.d()), false).unwrap();
    let ops: Vec<Op<'_>> = [data.q(), data.other_q()]
        .into_iter()
        .flat_map(|q| {
            let search = Retrieve::new(q.clone(), &resident, RetrieveOptions::top_k(4));
            [Op::Forward(Forward::maxsim(q, &resident, Options::default())), Op::Retrieve(search)]
        })
        .collect();
    let single: Vec<Output> = ops.iter().map(|op| run(backend, op)).collect();
    assert_eq!(backend.batch(&ops).unwrap(), single);
    let event = backend.event().unwrap();
    event.wait().unwrap();
    assert!(event.is_over().unwrap());
    assert_eq!(backend.batch(&[]).unwrap(), vec![]);
    let narrow = Data::new("narrow", 8, DType::BF16);
    let wrong = Op::Forward(Forward::maxsim(narrow.q(), &resident, Options::default()));
    assert_eq!(backend.batch(&[ops[0].clone(), wrong]).unwrap_err().code().as_str(), "ERR_SHAPE");
}

/// Queries, documents and scores in memory of the caller's: the bits of a call with host memory, aligned or not, masked or not.
pub(crate) fn interop(backend: &CudaBackend) {
    for (dtypes, dim, at) in [
        ((DType::F16, DType::F16), 32, 0),
        ((DType::F16, DType::F16), 33, 0),
        ((DType::F16, DType::F16), 32, 8),
        ((DType::BF16, DType::F32), 16, 0),
        ((DType::F32, DType::F32), 7, 4),
    ] {
        let data = Data { d: Data::new("interop", dim, dtypes.1).d, ..Data::new("interop", dim, dtypes.0) };
        let on_device = |data: &DataBuf| {
            let bytes = bytes(data);
            let memory = backend.allocate(bytes.len() + at).unwrap();
            memory.write(&[vec![0; at], bytes].concat()).unwrap();
            memory
        };
        let (q_memory, d_memory) = (on_device(&data.q), on_device(&data.d));
        // SAFETY: the memory lives as long as the tensors, and calls are ordered by the backend's queue.
        let borrow = |memory: u64, shape: &[usize], dtype| unsafe { backend.borrow(memory, shape, dtype) };
        let q = borrow(q_memory.address() + at as u64, &[QUERIES[0], QUERIES[1], dim], dtypes.0).unwrap();
        let d = borrow(d_memory.address() + at as u64, &[DOCUMENTS[0], DOCUMENTS[1], dim], dtypes.1).unwrap();
        let (q_shape, d_shape) = (q.stand_in(), d.stand_in());
        let mask: Vec<bool> = (0..DOCUMENTS[0] * DOCUMENTS[1]).map(|i| i % 3 != 1).collect();
        for masked in [false, true] {
            let host_d = Tokens::padded(&data.d, d.shape()).unwrap();
            let there = Tokens::padded(&d_shape, d.shape()).unwrap();
            let (host_d, there) = match masked {
                true => (host_d.with_mask(&mask).unwrap(), there.with_mask(&mask).unwrap()),
                false => (host_d, there),
            };
            // SAFETY: as above.
            let documents = unsafe { backend.adopt(&there, &d, false) }.unwrap();
            let scores_memory = backend.allocate(QUERIES[0] * DOCUMENTS[0] * 4).unwrap();
            let mut scores =
                borrow(scores_memory.address(), &[QUERIES[0], DOCUMENTS[0]], DType::F32).unwrap();
            for normalize in [false, true] {
                let options = Options { normalize, ..Options::default() };
                let host = Forward::maxsim(data.q(), host_d.clone(), options);
                let Output::Scores(expected) = run(backend, &Op::Forward(host)) else { unreachable!() };
                let q_tokens = Tokens::padded(&q_shape, q.shape()).unwrap();
                // SAFETY: the default stream is one.
                unsafe { backend.wait_for_stream(0) }.unwrap();
                backend
                    .score_into(&Forward::maxsim(q_tokens, &documents, options), Some(&q), &mut scores, None)
                    .unwrap();
                // SAFETY: as above.
                unsafe { backend.make_stream_wait(0) }.unwrap();
                let got: Vec<f32> = bytemuck::pod_collect_to_vec(&scores_memory.read().unwrap());
                assert_eq!(got, expected.values, "{dtypes:?} d={dim} at {at} masked={masked} {normalize}");
            }
        }
    }
}

/// Memory that is not what it has to be is refused, and nothing is launched.
pub(crate) fn wrong_memory(backend: &CudaBackend) {
    let memory = backend.allocate(1 << 13).unwrap();
    let code = |address: u64, shape: &[usize], dtype| {
        // SAFETY: nothing is done with what is made.
        let made = unsafe { backend.borrow(address, shape, dtype) };
        made.map_or_else(
            |error| (error.code().as_str(), error.argument().unwrap().to_owned()),
            |_| ("ok", String::new()),
        )
    };
    let wrong = |code, argument: &str| (code, argument.to_owned());
    assert_eq!(code(memory.address(), &[4, 16], DType::F32).0, "ok");
    assert_eq!(code(0, &[4, 16], DType::F32), wrong("ERR_VALUE", "address"));
    assert_eq!(code(0, &[0, 16], DType::F32).0, "ok", "nothing may be nowhere");
    assert_eq!(code(memory.address() + 2, &[4], DType::F32), wrong("ERR_VALUE", "address"));
    assert_eq!(code(memory.address(), &[1 << 40], DType::F32), wrong("ERR_VALUE", "address"));
    assert_eq!(code(memory.address(), &[1 << 40, 1 << 40], DType::F32), wrong("ERR_LIMIT", "shape"));
    let host = [0u64; 16];
    assert_eq!(code(host.as_ptr() as u64, &[4], DType::F32), wrong("ERR_VALUE", "address"));
    let data = Data::new("wrong", 16, DType::F16);
    let op = Forward::maxsim(data.q(), data.d(), Options::default());
    // SAFETY: the memory lives on; nothing else uses it.
    let borrow = |shape: &[usize], dtype| unsafe { backend.borrow(memory.address(), shape, dtype) }.unwrap();
    let into = |op: &Forward<'_>, q: Option<&[usize]>, shape: &[usize], dtype| {
        let q = q.map(|shape| borrow(shape, DType::F16));
        let error = backend.score_into(op, q.as_ref(), &mut borrow(shape, dtype), None).unwrap_err();
        (error.code().as_str(), error.argument().unwrap_or_default().to_owned())
    };
    assert_eq!(into(&op, None, &[3, 6], DType::F32), wrong("ERR_SHAPE", "scores"));
    assert_eq!(into(&op, None, &[3, 7], DType::F16), wrong("ERR_DTYPE", "scores"));
    assert_eq!(into(&op, Some(&[2, 9, 16]), &[3, 7], DType::F32), wrong("ERR_SHAPE", "Q"));
    let winners = Options { argmax: true, ..Options::default() };
    let winners = Forward::maxsim(data.q(), data.d(), winners);
    assert_eq!(into(&winners, None, &[3, 7], DType::F32), wrong("ERR_VALUE", "winners"));
    let few = |count| {
        // SAFETY: as above.
        let mut few = unsafe { backend.borrow_winners(memory.address(), count) }.unwrap();
        let error = backend.score_into(&winners, None, &mut borrow(&[3, 7], DType::F32), Some(&mut few));
        error.unwrap_err().argument().unwrap().to_owned()
    };
    assert_eq!(few(3 * 7 * 9 - 1), "winners");
    let gradients = |grad: &[usize], q: (&[usize], DType), d: (&[usize], DType)| {
        let (mut q, mut d) = (borrow(q.0, q.1), borrow(d.0, d.1));
        let into = GradientsInto { q: Some(&mut q), d: Some(&mut d) };
        let error = backend.backward_into(&op, None, &borrow(grad, DType::F32), None, into).unwrap_err();
        (error.code().as_str(), error.argument().unwrap_or_default().to_owned())
    };
    let (q, d) = ((&[3usize, 9, 16][..], DType::F16), (&[7usize, 20, 16][..], DType::F16));
    assert_eq!(gradients(&[3, 6], q, d), wrong("ERR_SHAPE", "grad"));
    assert_eq!(gradients(&[3, 7], (&[3, 8, 16], q.1), d), wrong("ERR_SHAPE", "gradient of Q"));
    assert_eq!(gradients(&[3, 7], (&[9 * 3 * 16], q.1), d), wrong("ERR_SHAPE", "gradient of Q"));
    assert_eq!(gradients(&[3, 7], q, (&[7, 20, 8], d.1)), wrong("ERR_SHAPE", "gradient of D"));
    let (q, d) = ((&[3usize, 9, 16][..], DType::BF16), (&[7usize, 10, 16][..], DType::F32));
    assert_eq!(gradients(&[3, 7], q, d), wrong("ERR_DTYPE", "gradient of Q"));
}

/// Winners and gradients in memory of the caller's: the bits of calls with host memory, whatever the layout.
pub(crate) fn training(backend: &CudaBackend) {
    for (dtypes, dim, at) in [
        ((DType::F16, DType::F16), 32, 0usize),
        ((DType::F16, DType::F16), 33, 2),
        ((DType::BF16, DType::F32), 16, 8),
        ((DType::F32, DType::F32), 7, 4),
    ] {
        let data = Data { d: Data::new("training", dim, dtypes.1).d, ..Data::new("training", dim, dtypes.0) };
        let mut random = Random::named("training");
        // Vectors begin anywhere, scores and winners where their 4 bytes may.
        let room = at.next_multiple_of(4);
        let placed = |bytes: Vec<u8>, at: usize| {
            let memory = backend.allocate(bytes.len() + at).unwrap();
            memory.write(&[vec![0xa5; at], bytes].concat()).unwrap();
            memory
        };
        let memory = |bytes: Vec<u8>| placed(bytes, at);
        let numbers = |bytes: &[u8]| placed(bytes.to_vec(), room);
        let (q_memory, d_memory) = (memory(bytes(&data.q)), memory(bytes(&data.d)));
        // SAFETY: the memory lives as long as the tensors, and calls are ordered by the backend's queue.
        let borrow = |memory: &DeviceMemory, shape: &[usize], dtype| unsafe {
            backend.borrow(memory.address() + at as u64, shape, dtype)
        };
        let (q_shape, d_shape) = ([QUERIES[0], QUERIES[1], dim], [DOCUMENTS[0], DOCUMENTS[1], dim]);
        let q = borrow(&q_memory, &q_shape, dtypes.0).unwrap();
        let d = borrow(&d_memory, &d_shape, dtypes.1).unwrap();
        let (q_stand_in, d_stand_in) = (q.stand_in(), d.stand_in());
        let q_mask: Vec<bool> = (0..QUERIES[0] * QUERIES[1]).map(|i| i % 4 != 2).collect();
        let d_mask: Vec<bool> = (0..DOCUMENTS[0] * DOCUMENTS[1]).map(|i| i % 3 != 1).collect();
        let offsets = [0u32, 4, 4, 27];
        let queries = |data| -> [Tokens<'_>; 3] {
            let padded = Tokens::padded(data, &q_shape).unwrap();
            let packed = Tokens::packed(data, dim, &offsets[..]).unwrap();
            [padded.clone(), padded.with_mask(&q_mask).unwrap(), packed]
        };
        let documents = |data| -> [Tokens<'_>; 3] {
            let padded = Tokens::padded(data, &d_shape).unwrap();
            let (some, masked) =
                (padded.clone().with_lengths(&LENGTHS[..]), padded.clone().with_mask(&d_mask));
            [padded, some.unwrap(), masked.unwrap()]
        };
        for (case, (host_q, there_q)) in queries(&data.q).into_iter().zip(queries(&q_stand_in)).enumerate() {
            for (host_d, there_d) in documents(&data.d).into_iter().zip(documents(&d_stand_in)) {
                // SAFETY: as above.
                let adopted = unsafe { backend.adopt(&there_d, &d, false) }.unwrap();
                let options = Options { normalize: case == 1, argmax: true, ..Options::default() };
                let (first, second) = (vec![2u32, 0, 2, 1, 0], vec![6u32, 2, 0, 3, 6]);
                let pairs =
                    |q, d| Forward::score_pairs(q, d, first.clone(), second.clone(), options).unwrap();
                let forwards = [
                    (
                        Forward::maxsim(host_q.clone(), host_d.clone(), options),
                        Forward::maxsim(there_q.clone(), &adopted, options),
                    ),
                    (
                        pairs(host_q.clone(), Documents::Tokens(host_d.clone())),
                        pairs(there_q.clone(), Documents::Resident(&adopted)),
                    ),
                ];
                for (host, there) in forwards {
                    let what = format!("{dtypes:?} d={dim} queries {case} {:?}", host.pairing);
                    let Output::Scores(expected) = run(backend, &Op::Forward(host.clone())) else {
                        unreachable!()
                    };
                    let argmax = expected.argmax.unwrap();
                    let scores_memory = numbers(bytemuck::cast_slice(&vec![0f32; expected.values.len()]));
                    let winners_memory = numbers(bytemuck::cast_slice(&vec![0i32; argmax.values.len()]));
                    // SAFETY: as above.
                    let (mut scores, mut winners) = unsafe {
                        let at = |memory: &DeviceMemory| memory.address() + room as u64;
                        (
                            backend.borrow(at(&scores_memory), &expected.shape, DType::F32).unwrap(),
                            backend.borrow_winners(at(&winners_memory), argmax.values.len()).unwrap(),
                        )
                    };
                    backend.score_into(&there, Some(&q), &mut scores, Some(&mut winners)).unwrap();
                    let read = |memory: &DeviceMemory| memory.read().unwrap();
                    assert_eq!(
                        read(&scores_memory)[room..],
                        *bytemuck::cast_slice::<f32, u8>(&expected.values),
                        "{what}"
                    );
                    assert_eq!(
                        read(&winners_memory)[room..],
                        *bytemuck::cast_slice::<i32, u8>(&argmax.values),
                        "{what}"
                    );
                    let grad: Vec<f32> = expected.values.iter().map(|_| random.normal()).collect();
                    let grad_memory = numbers(bytemuck::cast_slice(&grad));
                    let Output::Gradients(expected) = run(backend, &Op::Backward(Backward::new(host, &grad)))
                    else {
                        unreachable!()
                    };
                    for given in [true, false] {
                        // What was there before must not show through.
                        let (to_q, to_d) = (
                            memory(vec![0x3c; bytes(&data.q).len()]),
                            memory(vec![0x3c; bytes(&data.d).len()]),
                        );
                        let mut grad_q = borrow(&to_q, &q_shape, dtypes.0).unwrap();
                        let mut grad_d = borrow(&to_d, &d_shape, dtypes.1).unwrap();
                        // SAFETY: as above.
                        let grad = unsafe {
                            backend.borrow(grad_memory.address() + room as u64, &[grad.len()], DType::F32)
                        };
                        let grad = grad.unwrap();
                        let into = GradientsInto { q: Some(&mut grad_q), d: Some(&mut grad_d) };
                        backend
                            .backward_into(&there, Some(&q), &grad, given.then_some(&winners), into)
                            .unwrap();
                        let same = |memory, tensor: &Option<Tensor>| {
                            read(memory)[at..] == bytes(tensor.as_ref().unwrap().data())
                        };
                        assert!(same(&to_q, &expected.q), "{what} given={given}: gradient of Q");
                        assert!(same(&to_d, &expected.d), "{what} given={given}: gradient of D");
                    }
                }
            }
        }
    }
}

/// Winners that are no tokens of their documents count as none, and nothing is read there.
pub(crate) fn foreign_winners(backend: &CudaBackend) {
    let data = Data::new("foreign", 16, DType::F32);
    let op = Forward::maxsim(data.q(), data.d(), Options::default());
    let count = op.argmax_len();
    let grad = backend.allocate(op.pair_count() * 4).unwrap();
    grad.write(bytemuck::cast_slice(&vec![1f32; op.pair_count()])).unwrap();
    let winners_memory = backend.allocate(count * 4).unwrap();
    let to = backend.allocate(data.q().slots() * 16 * 4).unwrap();
    // SAFETY: the memory lives as long as the tensors, and calls are ordered by the backend's queue.
    let (grad, winners, mut q) = unsafe {
        (
            backend.borrow(grad.address(), &[3, 7], DType::F32).unwrap(),
            backend.borrow_winners(winners_memory.address(), count).unwrap(),
            backend.borrow(to.address(), &[QUERIES[0], QUERIES[1], 16], DType::F32).unwrap(),
        )
    };
    for foreign in [-1i32, -2, 20, i32::MAX, i32::MIN] {
        winners_memory.write(bytemuck::cast_slice(&vec![foreign; count])).unwrap();
        to.write(&vec![0x3c; to.bytes()]).unwrap();
        let into = GradientsInto { q: Some(&mut q), d: None };
        backend.backward_into(&op, None, &grad, Some(&winners), into).unwrap();
        assert!(to.read().unwrap().iter().all(|&byte| byte == 0), "{foreign}");
    }
}

/// Documents that the device normalises and stores in another type have the bits that the host gives them.
pub(crate) fn conversion(backend: &CudaBackend) {
    for (dim, dtype) in [(33, DType::F32), (128, DType::F16), (20, DType::BF16)] {
        let data = Data::new("conversion", dim, dtype);
        for storage in [DType::F32, DType::F16, DType::BF16, DType::E4M3, DType::I8] {
            for normalize in [true, false] {
                let ours = backend.upload_as(&data.d(), normalize, storage).unwrap().unwrap();
                let host = host_corpus(&data, normalize, storage);
                let theirs = backend.upload(&Documents::Tokens(host.as_tokens()), normalize).unwrap();
                let meta = |resident: &maxsim_core::Resident| {
                    let meta = resident.meta();
                    (meta.dim, meta.dtype, meta.kept, meta.token_bytes, meta.bytes, meta.normalized)
                };
                assert_eq!(meta(&ours), meta(&theirs), "{dtype} to {storage}");
                for options in [Options::default(), Options::normalized()] {
                    let score =
                        |resident| run(backend, &Op::Forward(Forward::maxsim(data.q(), resident, options)));
                    assert_eq!(score(&ours), score(&theirs), "{dtype} to {storage}, normalize={normalize}");
                }
            }
        }
    }
}

/// What the engine makes of documents on the host.
fn host_corpus(data: &Data, normalize: bool, storage: DType) -> maxsim_core::TokensBuf {
    let documents = data.d();
    let dim = documents.dim();
    let mut values = vec![0f32; documents.data().len()];
    for row in documents.sequences().kept_rows() {
        let vector = &mut values[row * dim..(row + 1) * dim];
        vector.copy_from_slice(&documents.vector(row));
        if normalize {
            maxsim_core::normalize(vector);
        }
    }
    let quantize = match storage {
        DType::E4M3 => maxsim_core::quantize_fp8,
        DType::I8 => maxsim_core::quantize_int8,
        float => return documents.to_buf().with_data(DataBuf::from_f32(&values, float)).unwrap(),
    };
    let x = TensorRef::new(&values, &[documents.slots(), dim]).unwrap();
    let quantized = quantize(&x, maxsim_core::ScaleMode::PerToken).unwrap();
    let tokens = documents.to_buf().with_data(quantized.values.into_data()).unwrap();
    tokens.with_token_scales(quantized.scales).unwrap()
}

/// A corpus over several logical devices of `make` answers as one of them.
pub(crate) fn shards(make: &dyn Fn() -> CudaBackend) {
    let data = Data::new("shards", 16, DType::F16);
    let corpus = |backend: Arc<dyn Backend>| -> Corpus {
        let engine = Engine::new(vec![backend]).unwrap().silent();
        engine.corpus(data.d(), CorpusOptions::default()).unwrap()
    };
    let alone = corpus(Arc::new(make()));
    for count in [1, 2, 9] {
        let shards = (0..count).map(|_| Arc::new(make()) as Arc<dyn Backend>).collect();
        let spread = corpus(Arc::new(ShardedBackend::new(shards).unwrap()));
        for top_k in [1, 3, 100] {
            let options = SearchOptions::top_k(top_k).with_explain();
            assert_eq!(spread.search(data.q(), options).unwrap(), alone.search(data.q(), options).unwrap());
        }
        let options = Options::default();
        assert_eq!(spread.score(data.q(), options).unwrap(), alone.score(data.q(), options).unwrap());
    }
}

/// Memory that cannot be had is an error, and the backend works on.
pub(crate) fn out_of_memory(backend: &CudaBackend) {
    let data = Data::new("memory", 16, DType::F16);
    let op = Op::Forward(Forward::maxsim(data.q(), data.d(), Options::default()));
    let before = run(backend, &op);
    let error = backend.allocate(1 << 46).err().unwrap();
    assert_eq!(error.code().as_str(), "ERR_OUT_OF_MEMORY");
    assert_eq!(run(backend, &op), before);
}
