//! Bad input: which code, about which argument, with what was expected and what came; never a panic.

use maxsim::{
    CorpusOptions, CpuLevel, DType, E4M3, Engine, EngineBuilder, Error, Forward, Options, Precision, Result,
    RetrieveOptions, Scales, Scorer, SearchOptions, Tokens, pack_padded,
};
use maxsim_tests::cpu_devices as devices;

const NAN: f32 = f32::NAN;

/// A name, the call, the code and the argument its error must have.
type Row = (&'static str, Box<dyn Fn(&Engine) -> Result<()>>, &'static str, &'static str);

fn row(
    name: &'static str,
    code: &'static str,
    argument: &'static str,
    call: impl Fn(&Engine) -> Result<()> + 'static,
) -> Row {
    (name, Box::new(call), code, argument)
}

/// 24 numbers that fit `[2, 3, 4]` and `[1, 2, 3, 4]`.
const DATA: [f32; 24] = [0.5; 24];
const BYTES: [i8; 24] = [1; 24];

fn q() -> Tokens<'static> {
    Tokens::padded(&DATA, &[2, 3, 4]).unwrap()
}

fn packed() -> Tokens<'static> {
    Tokens::packed(&DATA, 4, vec![0u32, 2, 6]).unwrap()
}

/// `[2, 1, 3, 4]`.
fn candidates() -> Tokens<'static> {
    Tokens::padded(&DATA, &[2, 1, 3, 4]).unwrap()
}

fn options() -> Options {
    Options::default()
}

fn tokens() -> Vec<Row> {
    vec![
        row("rank 1", "ERR_SHAPE", "data", |_| Tokens::padded(&DATA, &[24]).map(drop)),
        row("rank 5", "ERR_SHAPE", "data", |_| Tokens::padded(&DATA, &[1, 1, 2, 3, 4]).map(drop)),
        row("elements", "ERR_SHAPE", "data", |_| Tokens::padded(&DATA, &[2, 3, 5]).map(drop)),
        row("d = 0", "ERR_SHAPE", "data", |_| Tokens::padded(&DATA, &[2, 3, 0]).map(drop)),
        row("overflow", "ERR_LIMIT", "data", |_| Tokens::padded(&DATA, &[usize::MAX, 2, 4]).map(drop)),
        row("packed d = 0", "ERR_SHAPE", "data", |_| Tokens::packed(&DATA, 0, &[0u32, 6]).map(drop)),
        row("ragged rows", "ERR_SHAPE", "data", |_| Tokens::packed(&DATA, 5, &[0u32, 4]).map(drop)),
        row("no offsets", "ERR_SHAPE", "cu_seqlens", |_| Tokens::packed(&DATA, 4, &[0u32; 0]).map(drop)),
        row("first offset", "ERR_INDEX", "cu_seqlens", |_| Tokens::packed(&DATA, 4, &[1u32, 6]).map(drop)),
        row("last offset", "ERR_INDEX", "cu_seqlens", |_| Tokens::packed(&DATA, 4, &[0u32, 7]).map(drop)),
        row("early end", "ERR_INDEX", "cu_seqlens", |_| Tokens::packed(&DATA, 4, &[0u32, 5]).map(drop)),
        row("falling", "ERR_INDEX", "cu_seqlens", |_| Tokens::packed(&DATA, 4, &[0u32, 4, 3, 6]).map(drop)),
        row("negative", "ERR_INDEX", "cu_seqlens", |_| Tokens::packed(&DATA, 4, &[0i64, -1, 6]).map(drop)),
        row("64 bits", "ERR_LIMIT", "cu_seqlens", |_| Tokens::packed(&DATA, 4, &[0i64, 1 << 33]).map(drop)),
        row("mask", "ERR_SHAPE", "mask", |_| q().with_mask(&vec![true; 5]).map(drop)),
        row("packed mask", "ERR_SHAPE", "mask", |_| packed().with_mask(&vec![true; 7]).map(drop)),
        row("lengths", "ERR_SHAPE", "lengths", |_| q().with_lengths(&[3u32]).map(drop)),
        row("too long", "ERR_INDEX", "lengths", |_| q().with_lengths(&[3u32, 4]).map(drop)),
        row("negative length", "ERR_INDEX", "lengths", |_| q().with_lengths(&[3i32, -1]).map(drop)),
        row("packed lengths", "ERR_SHAPE", "lengths", |_| packed().with_lengths(&[2u32, 4]).map(drop)),
        row("scales of floats", "ERR_DTYPE", "scales", |_| q().with_scales(Scales::PerTensor(1.0)).map(drop)),
        row("scale count", "ERR_SHAPE", "scales", |_| {
            int8().with_scales(Scales::PerToken(&[1.0; 5])).map(drop)
        }),
        row("scale NaN", "ERR_VALUE", "scales", |_| int8().with_scales(Scales::PerTensor(NAN)).map(drop)),
        row("scale 0", "ERR_VALUE", "scales", |_| int8().with_scales(Scales::PerTensor(0.0)).map(drop)),
        row("scale < 0", "ERR_VALUE", "scales", |_| int8().with_scales(Scales::PerTensor(-1.0)).map(drop)),
        row("scale inf", "ERR_VALUE", "scales", |_| {
            let scales = [1.0, 1.0, 1.0, 1.0, 1.0, f32::INFINITY];
            int8().with_scales(Scales::PerToken(&scales)).map(drop)
        }),
    ]
}

fn int8() -> Tokens<'static> {
    Tokens::padded(&BYTES, &[2, 3, 4]).unwrap()
}

fn operators() -> Vec<Row> {
    let other_dim = || Tokens::padded(&DATA, &[2, 2, 6]).unwrap();
    let three = || Tokens::padded(&DATA, &[3, 2, 4]).unwrap();
    vec![
        row("d differs", "ERR_SHAPE", "D", move |e| e.maxsim(q(), other_dim(), options()).map(drop)),
        row("rank 4 Q", "ERR_SHAPE", "Q", |e| e.maxsim(candidates(), q(), options()).map(drop)),
        row("other Nq", "ERR_SHAPE", "D", move |e| e.maxsim(three(), candidates(), options()).map(drop)),
        row("no scale_Q", "ERR_VALUE", "scale_Q", |e| e.maxsim(int8(), q(), options()).map(drop)),
        row("no scale_D", "ERR_VALUE", "scale_D", |e| e.maxsim(q(), int8(), options()).map(drop)),
        row("fp8 without scale", "ERR_VALUE", "scale_D", |e| {
            let bytes = [E4M3(0x38); 24];
            e.maxsim(q(), Tokens::padded(&bytes, &[2, 3, 4])?, options()).map(drop)
        }),
        row("pairs of other counts", "ERR_SHAPE", "D", move |e| {
            e.maxsim_pairs(q(), three(), options()).map(drop)
        }),
        row("pair list", "ERR_SHAPE", "pair_d_idx", |e| {
            e.score_pairs(q(), packed(), &[0u32, 1], &[0u32], options()).map(drop)
        }),
        row("pair_q_idx", "ERR_INDEX", "pair_q_idx", |e| {
            e.score_pairs(q(), packed(), &[0u32, 2], &[0u32, 0], options()).map(drop)
        }),
        row("pair_d_idx", "ERR_INDEX", "pair_d_idx", |e| {
            e.score_pairs(q(), packed(), &[0u32, 1], &[0u32, 2], options()).map(drop)
        }),
        row("negative index", "ERR_INDEX", "pair_q_idx", |e| {
            e.score_pairs(q(), packed(), &[-1i32], &[0i32], options()).map(drop)
        }),
        row("index into nothing", "ERR_INDEX", "pair_d_idx", |e| {
            let none = Tokens::padded(&[0f32; 0], &[0, 3, 4])?;
            e.score_pairs(q(), none, &[0u32], &[0u32], options()).map(drop)
        }),
        row("padded rank", "ERR_SHAPE", "documents", |e| e.maxsim_padded(q(), q(), options()).map(drop)),
        row("padded B", "ERR_SHAPE", "D", move |e| {
            e.maxsim_padded(three(), candidates(), options()).map(drop)
        }),
        row("pack rank", "ERR_SHAPE", "documents", |_| pack_padded(&q(), &q()).map(drop)),
        row("pack B", "ERR_SHAPE", "documents", move |_| pack_padded(&three(), &candidates()).map(drop)),
        row("pack d", "ERR_SHAPE", "documents", |_| {
            let six = Tokens::padded(&DATA, &[2, 1, 2, 6])?;
            pack_padded(&q(), &six).map(drop)
        }),
        row("pack mask", "ERR_VALUE", "queries", |_| {
            let mask = vec![true; 6];
            pack_padded(&q().with_mask(&mask)?, &candidates()).map(drop)
        }),
        row("pack int8", "ERR_DTYPE", "documents", |_| {
            let d = Tokens::padded(&BYTES, &[2, 1, 3, 4])?.with_scales(Scales::PerTensor(1.0))?;
            pack_padded(&q(), &d).map(drop)
        }),
        row("top_k", "ERR_VALUE", "top_k", |e| e.retrieve(q(), q(), RetrieveOptions::top_k(0)).map(drop)),
        row("chunk", "ERR_VALUE", "chunk", |e| {
            e.retrieve(q(), q(), RetrieveOptions { chunk: Some(0), ..RetrieveOptions::top_k(1) }).map(drop)
        }),
        row("retrieve rank 4", "ERR_SHAPE", "D", |e| {
            e.retrieve(q(), candidates(), RetrieveOptions::top_k(1)).map(drop)
        }),
        row("retrieve d", "ERR_SHAPE", "D", move |e| {
            e.retrieve(q(), other_dim(), RetrieveOptions::top_k(1)).map(drop)
        }),
    ]
}

fn resident() -> Vec<Row> {
    let corpus = |e: &Engine| e.corpus(q(), CorpusOptions::default());
    vec![
        row("corpus rank 4", "ERR_SHAPE", "documents", |e| {
            e.corpus(candidates(), CorpusOptions::default()).map(drop)
        }),
        row("corpus scales", "ERR_VALUE", "scales", |e| {
            e.corpus(int8(), CorpusOptions { normalize: false, ..CorpusOptions::default() }).map(drop)
        }),
        row("corpus of quantised documents, normalised", "ERR_DTYPE", "documents", |e| {
            e.corpus(int8().with_scales(maxsim::Scales::PerTensor(1.0))?, CorpusOptions::default()).map(drop)
        }),
        row("corpus of quantised documents, converted", "ERR_DTYPE", "documents", |e| {
            let options =
                CorpusOptions { storage: Some(DType::F16), normalize: false, ..CorpusOptions::default() };
            e.corpus(int8().with_scales(maxsim::Scales::PerTensor(1.0))?, options).map(drop)
        }),
        row("search d", "ERR_SHAPE", "D", move |e| {
            let query = Tokens::padded(&DATA, &[1, 4, 6])?;
            corpus(e)?.search(query, SearchOptions::top_k(1)).map(drop)
        }),
        row("search top_k", "ERR_VALUE", "top_k", move |e| {
            corpus(e)?.search(q(), SearchOptions::top_k(0)).map(drop)
        }),
        row("search Q", "ERR_SHAPE", "Q", move |e| {
            corpus(e)?.search(candidates(), SearchOptions::top_k(1)).map(drop)
        }),
        row("scorer queries", "ERR_SHAPE", "Q", |e| Scorer::new(e.clone()).score(q(), q()).map(drop)),
        row("scorer pad", "ERR_VALUE", "mask_pad_token", |e| {
            Scorer::new(e.clone()).forward_with_ids(q(), &[1; 6], q(), &[1; 6]).map(drop)
        }),
        row("scorer q_ids", "ERR_SHAPE", "q_ids", |e| {
            Scorer::new(e.clone()).mask_pad_token(0).forward_with_ids(q(), &[1; 5], q(), &[1; 6]).map(drop)
        }),
        row("scorer d_ids", "ERR_SHAPE", "d_ids", |e| {
            Scorer::new(e.clone()).mask_pad_token(0).forward_with_ids(q(), &[1; 6], q(), &[1; 7]).map(drop)
        }),
    ]
}

fn settings() -> Vec<Row> {
    vec![
        row("precision", "ERR_VALUE", "precision", |_| "double".parse::<Precision>().map(drop)),
        row("dtype", "ERR_VALUE", "dtype", |_| "f64".parse::<DType>().map(drop)),
        row("backend", "ERR_VALUE", "backend", |_| "tpu".parse::<maxsim::BackendKind>().map(drop)),
        row("level", "ERR_VALUE", "level", |_| "sse9".parse::<CpuLevel>().map(drop)),
        row("threads", "ERR_VALUE", "threads", |_| EngineBuilder::new().threads(0).build().map(drop)),
        row("backends", "ERR_VALUE", "backends", |_| Engine::new(vec![]).map(drop)),
    ]
}

#[test]
fn every_bad_input_is_named() {
    for (name, call, code, argument) in [tokens(), operators(), resident(), settings()].into_iter().flatten()
    {
        for device in devices() {
            let Err(error) = call(&device.engine) else { panic!("{}: {name} was accepted", device.name) };
            assert_eq!(error.code().as_str(), code, "{name}: {error}");
            assert_eq!(error.argument(), Some(argument), "{name}: {error}");
            let message = error.to_string();
            assert!(message.starts_with(argument), "{name}: {message}");
            let states = message.contains("expected ") || message.contains("limit is ");
            let (_, got) = message.rsplit_once("got ").unwrap_or_default();
            assert!(states && !got.is_empty(), "{name}: says not what was expected and what came: {message}");
        }
    }
}

/// The first non-finite element that counts, and only where it was asked for.
#[test]
fn non_finite_input_is_named() {
    let strict = Options { validate_finite: true, ..Options::default() };
    let mut bad = DATA;
    bad[17] = f32::NEG_INFINITY;
    bad[20] = NAN;
    for device in devices() {
        let e = &device.engine;
        let bad = || Tokens::padded(&bad, &[2, 3, 4]).unwrap();
        let top = RetrieveOptions { scoring: strict, ..RetrieveOptions::top_k(1) };
        let corpus = CorpusOptions { validate_finite: true, ..CorpusOptions::default() };
        let cases: [(Result<()>, &str); 4] = [
            (e.maxsim(bad(), q(), strict).map(drop), "Q"),
            (e.maxsim(q(), bad(), strict).map(drop), "D"),
            (e.retrieve(q(), bad(), top).map(drop), "D"),
            (e.corpus(bad(), corpus).map(drop), "documents"),
        ];
        for (result, name) in cases {
            let error = result.unwrap_err();
            assert_eq!(error.code().as_str(), "ERR_NON_FINITE", "{error}");
            assert!(
                matches!(&error, Error::NonFinite { argument, position: 17, got }
                    if argument == name && *got == f32::NEG_INFINITY),
                "{error}"
            );
        }
        // Documents on a device were checked when they were uploaded, or nobody knows.
        let unchecked = e.corpus(bad(), CorpusOptions::default()).unwrap();
        let error = e.maxsim(q(), unchecked.documents(), strict).unwrap_err();
        assert_eq!((error.code().as_str(), error.argument()), ("ERR_VALUE", Some("validate_finite")));
        let checked = e.corpus(q(), corpus).unwrap();
        assert!(e.maxsim(q(), checked.documents(), strict).is_ok());
        // Unasked, it is computed with; masked or behind a length, it does not exist.
        assert!(e.maxsim(q(), bad(), Options::default()).is_ok());
        let mask = [1u8, 1, 1, 1, 0, 0];
        assert!(e.maxsim(q(), bad().with_mask(&mask[..]).unwrap(), strict).is_ok());
        assert!(e.maxsim(q(), bad().with_lengths(&[3u32, 1]).unwrap(), strict).is_ok());
    }
}

/// Integers of any width are taken where their values fit.
#[test]
fn integers_of_any_width() {
    let expected = Tokens::packed(&DATA, 4, &[0u32, 2, 6]).unwrap();
    macro_rules! widths {
        ($($ty:ty),*) => {$(
            let offsets: [$ty; 3] = [0, 2, 6];
            assert_eq!(Tokens::packed(&DATA, 4, &offsets).unwrap().offsets(), expected.offsets());
            let lengths: [$ty; 2] = [3, 0];
            assert_eq!(q().with_lengths(&lengths).unwrap().lengths(), Some(&[3u32, 0][..]));
            let pairs: [$ty; 1] = [1];
            assert!(Forward::score_pairs(q(), q(), &pairs, &pairs, options()).unwrap().validate().is_ok());
        )*};
    }
    widths!(i8, u8, i16, u16, i32, u32, i64, u64, usize, isize);
}

/// An engine refuses nothing after an error: errors leave no state behind.
#[test]
fn an_error_leaves_nothing_behind() {
    for device in devices() {
        let before = device.engine.maxsim(q(), q(), options()).unwrap();
        for (_, call, _, _) in [operators(), resident()].into_iter().flatten() {
            assert!(call(&device.engine).is_err());
        }
        assert_eq!(device.engine.maxsim(q(), q(), options()).unwrap(), before, "{}", device.name);
    }
}
