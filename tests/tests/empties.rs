//! Nothing as input: every kind of emptiness has a result of the right shape, and that result is zeros.

use maxsim::{CorpusOptions, Forward, Options, RetrieveOptions, Scores, SearchOptions, Tokens, pack_padded};
use maxsim_tests::{cpu_devices as devices, score};

const D: usize = 4;

fn zeros(context: &str, got: &Scores, shape: &[usize]) {
    assert_eq!(got.shape, shape, "{context}");
    // To the bit: a score of −0 would rank below 0.
    let bits: Vec<u32> = got.values.iter().map(|x| x.to_bits()).collect();
    assert_eq!(bits, vec![0; shape.iter().product()], "{context}");
    if let Some(argmax) = &got.argmax {
        assert!(argmax.values.iter().all(|&winner| winner == -1), "{context}: {argmax:?}");
    }
}

fn vectors(tokens: usize) -> Vec<f32> {
    (0..tokens * D).map(|i| 1.0 + i as f32).collect()
}

/// `[Nq, Lq] × [Nd, Ld]` with at least one extent 0.
#[test]
fn dense() {
    for (nq, nd, lq, ld) in [
        (0, 3, 2, 5),
        (2, 0, 2, 5),
        (2, 3, 0, 5),
        (2, 3, 2, 0),
        (0, 0, 2, 5),
        (0, 3, 0, 5),
        (2, 3, 0, 0),
        (0, 0, 0, 0),
        (1, 1, 0, 0),
    ] {
        let (q, d) = (vectors(nq * lq), vectors(nd * ld));
        for normalize in [false, true] {
            let options = Options { normalize, argmax: true, ..Options::default() };
            for device in devices() {
                let context = format!("{} {nq}x{lq} with {nd}x{ld}", device.name);
                let q = Tokens::padded(&q, &[nq, lq, D]).unwrap();
                let d = Tokens::padded(&d, &[nd, ld, D]).unwrap();
                let got = device.engine.maxsim(q.clone(), d.clone(), options).unwrap();
                zeros(&context, &got, &[nq, nd]);
                assert_eq!(got.argmax.unwrap().shape(), Some(&[nq, nd, lq][..]), "{context}");

                let top = device.engine.retrieve(q.clone(), d.clone(), RetrieveOptions::top_k(2)).unwrap();
                assert_eq!(top.shape, [nq, nd.min(2)], "{context}");
                assert!(top.scores.iter().all(|x| x.to_bits() == 0), "{context}");
                // Equal scores come by index.
                let indices: Vec<u32> = (0..nq).flat_map(|_| 0..nd.min(2) as u32).collect();
                assert_eq!(top.indices, indices, "{context}");

                let corpus = device.engine.corpus(d, CorpusOptions { normalize, ..CorpusOptions::default() });
                let corpus = corpus.unwrap();
                assert_eq!(corpus.count(), nd);
                zeros(&context, &corpus.score(q.clone(), options).unwrap(), &[nq, nd]);
                let hits = corpus.search(q, SearchOptions::top_k(9).with_explain()).unwrap();
                assert_eq!(hits.shape, [nq, nd], "{context}");
            }
        }
    }
}

/// `[Nq, K, Ld, d]` documents: masks, lengths and `pack_padded`.
#[test]
fn kd_and_padded() {
    for (nq, k, lq, ld) in [(0, 3, 2, 5), (2, 0, 2, 5), (2, 3, 0, 5), (2, 3, 2, 0), (0, 0, 0, 0)] {
        let (q, d) = (vectors(nq * lq), vectors(nq * k * ld));
        for device in devices() {
            let context = format!("{} {nq}x{lq} with {k}x{ld}", device.name);
            let q = Tokens::padded(&q, &[nq, lq, D]).unwrap();
            let d = Tokens::padded(&d, &[nq, k, ld, D]).unwrap();
            let options = Options::default().with_argmax();
            zeros(&context, &device.engine.maxsim(q.clone(), d.clone(), options).unwrap(), &[nq, k]);
            let q = q.with_lengths(vec![lq; nq]).unwrap();
            let d = d.with_lengths(vec![ld; nq * k]).unwrap();
            let got = device.engine.maxsim_padded(q.clone(), d.clone(), options).unwrap();
            zeros(&context, &got, &[nq, k]);

            let packed = pack_padded(&q, &d).unwrap();
            assert_eq!((packed.cu_seqlens_q.len(), packed.cu_seqlens_d.len()), (nq + 1, nq * k + 1));
            let q = Tokens::packed(&packed.q, D, &packed.cu_seqlens_q).unwrap();
            let d = Tokens::packed(&packed.d, D, &packed.cu_seqlens_d).unwrap();
            let (q_idx, d_idx) = (&packed.pair_q_idx, &packed.pair_d_idx);
            let got = device.engine.score_pairs(q, d, q_idx, d_idx, options).unwrap();
            zeros(&context, &got, &[nq * k]);
        }
    }
}

#[test]
fn pairs() {
    for (b, lq, ld) in [(0, 2, 5), (3, 0, 5), (3, 2, 0)] {
        let (q, d) = (vectors(b * lq), vectors(b * ld));
        for device in devices() {
            let q = Tokens::padded(&q, &[b, lq, D]).unwrap();
            let d = Tokens::padded(&d, &[b, ld, D]).unwrap();
            let got = device.engine.maxsim_pairs(q, d, Options::default().with_argmax()).unwrap();
            zeros(&format!("{} {b} {lq} {ld}", device.name), &got, &[b]);
        }
    }
}

/// Packed: no sequence, empty sequences, an empty pair list.
#[test]
fn packed() {
    let data = vectors(3);
    for (q_offsets, d_offsets) in [
        (vec![0u32], vec![0u32, 1, 3]),
        (vec![0, 3], vec![0]),
        (vec![0], vec![0]),
        (vec![0, 0, 0], vec![0, 1, 3]),
        (vec![0, 3], vec![0, 0, 0, 0]),
    ] {
        for device in devices() {
            let tokens = |offsets: &[u32]| {
                let used = offsets[offsets.len() - 1] as usize * D;
                Tokens::packed(&data[..used], D, offsets.to_vec()).unwrap()
            };
            let (q, d) = (tokens(&q_offsets), tokens(&d_offsets));
            let shape = [q.count(), d.count()];
            let context = format!("{} {q_offsets:?} {d_offsets:?}", device.name);
            let options = Options::default().with_argmax();
            zeros(&context, &device.engine.maxsim_varlen(q.clone(), d.clone(), options).unwrap(), &shape);
            let none = device.engine.score_pairs(q, d, &[0u32; 0], &[0u32; 0], options).unwrap();
            zeros(&context, &none, &[0]);
        }
    }
}

/// Everything masked, and documents of no length among others.
#[test]
fn masked_and_short() {
    let (q, d) = (vectors(2 * 3), vectors(3 * 4));
    for device in devices() {
        let options = Options::default().with_argmax();
        let queries = || Tokens::padded(&q, &[2, 3, D]).unwrap();
        let documents = || Tokens::padded(&d, &[3, 4, D]).unwrap();
        for (q, d) in [
            (queries().with_mask(&vec![false; 6]).unwrap(), documents()),
            (queries(), documents().with_mask(&vec![false; 12]).unwrap()),
            (queries().with_lengths(&[0u32, 0]).unwrap(), documents()),
            (queries(), documents().with_lengths(&[0u32, 0, 0]).unwrap()),
        ] {
            zeros(&device.name, &score(&device.engine, &Forward::maxsim(q, d, options)), &[2, 3]);
        }
        // The first, the middle and the last document in turn.
        let full = score(&device.engine, &Forward::maxsim(queries(), documents(), options));
        for empty in 0..3 {
            let mut lengths = [4u32; 3];
            lengths[empty] = 0;
            let d = documents().with_lengths(&lengths).unwrap();
            let got = score(&device.engine, &Forward::maxsim(queries(), d, options));
            for (p, value) in got.values.iter().enumerate() {
                let expected = if p % 3 == empty { 0.0 } else { full.values[p] };
                assert_eq!(value.to_bits(), expected.to_bits(), "{} document {empty}", device.name);
            }
        }
    }
}

/// Extents so large that only their emptiness makes them possible are refused before memory is asked for.
#[test]
fn huge_and_empty() {
    let none: [f32; 0] = [];
    let one = [1.0f32; D];
    for device in devices() {
        let q = || Tokens::padded(&one, &[1, 1, D]).unwrap();
        let d = Tokens::padded(&none, &[1 << 40, 0, D]).unwrap();
        let error = device.engine.maxsim(q(), d.clone(), Options::default()).unwrap_err();
        assert_eq!(error.code().as_str(), "ERR_LIMIT", "{error}");
        let error = device.engine.retrieve(q(), d.clone(), RetrieveOptions::top_k(1)).unwrap_err();
        assert_eq!(error.code().as_str(), "ERR_LIMIT", "{error}");
        let error = device.engine.maxsim(d, q(), Options::default()).unwrap_err();
        assert_eq!(error.code().as_str(), "ERR_LIMIT", "{error}");
    }
}
