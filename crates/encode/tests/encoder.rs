//! What callers rely on: units, spans, limits, errors, and that search by meaning works.
#![cfg(feature = "static-en")]

use maxsim_core::Error;
use maxsim_encode::{DEFAULT_MAX_TOKENS, Encoded, StaticEncoder};
use proptest::prelude::*;

fn encoder() -> &'static StaticEncoder {
    StaticEncoder::embedded().unwrap()
}

fn norms(encoded: &Encoded) -> Vec<f32> {
    let dim = encoder().dim();
    encoded.vectors.chunks(dim).map(|v| v.iter().map(|x| x * x).sum::<f32>().sqrt()).collect()
}

#[test]
fn embedded_model_is_what_the_readme_says() {
    assert_eq!((encoder().name(), encoder().dim()), ("static-en-128", 128));
}

#[test]
fn document_vectors_are_unit_and_query_vectors_weighted() {
    let text = "the submarine , under water";
    let (document, query) = (encoder().encode_document(text), encoder().encode_query(text));
    assert_eq!(document.tokens, query.tokens);
    assert!(norms(&document).iter().all(|n| (n - 1.0).abs() < 1e-5), "{:?}", norms(&document));
    let weight = norms(&query);
    assert!(weight.iter().all(|&w| w > 0.0 && w <= 1.0 + 1e-5), "{weight:?}");
    // submarine > under > the >= the comma
    assert!(weight[1] > weight[3] && weight[3] > weight[0] && weight[0] >= weight[2], "{weight:?}");
    for (d, (q, w)) in document
        .vectors
        .iter()
        .zip(query.vectors.iter().zip(weight.iter().flat_map(|&w| std::iter::repeat_n(w, encoder().dim()))))
    {
        assert!((d * w - q).abs() < 1e-5);
    }
}

#[test]
fn tokens_are_shown_as_the_input_spells_them() {
    let encoded = encoder().encode_document("Café 🚢 Submersible cafe\u{301}!");
    assert_eq!(encoded.tokens, ["Café", "Sub", "mers", "ible", "cafe\u{301}", "!"]);
    assert_eq!(encoded.spans, [(0, 5), (11, 14), (14, 18), (18, 22), (23, 29), (29, 30)]);
}

#[test]
fn text_without_tokens_is_empty() {
    for text in ["", " \t\n", "🚢", "\u{0}\u{200b}"] {
        assert_eq!(encoder().encode_document(text), Encoded::default(), "{text:?}");
        assert_eq!(encoder().encode_query(text), Encoded::default(), "{text:?}");
    }
}

#[test]
fn long_texts_are_cut() {
    let text = "word ".repeat(DEFAULT_MAX_TOKENS + 9);
    assert_eq!(encoder().encode_document(&text).tokens.len(), DEFAULT_MAX_TOKENS);
    for limit in [0, 1, 7] {
        let short = encoder().clone().with_max_tokens(limit);
        assert_eq!(short.encode_document(&text).tokens.len(), limit);
        assert_eq!(short.encode_documents(&[&text], |_| ()).offsets, [0, limit as u32]);
    }
}

#[test]
fn batches_hold_what_single_documents_do() {
    let texts = ["a ship", "", "under the water"];
    let mut progress = Vec::new();
    let batch = encoder().encode_documents(&texts, |done| progress.push(done));
    assert_eq!(progress, [1, 2, 3]);
    assert_eq!((batch.offsets.as_slice(), batch.dim), ([0, 2, 2, 5].as_slice(), 128));
    let single: Vec<f32> = texts.iter().flat_map(|t| encoder().encode_document(t).vectors).collect();
    assert_eq!(batch.vectors, single);
    assert_eq!(encoder().encode_documents::<&str>(&[], |_| ()).offsets, [0]);
}

/// A model of two tokens and two dimensions.
fn tiny() -> Vec<u8> {
    let mut bytes = b"MAXSIMSE".to_vec();
    for n in [1u32, 2, 2, 4, 5] {
        bytes.extend(n.to_le_bytes());
    }
    bytes.extend(b"tinya\n##b");
    for weight in [1.0f32, 0.5] {
        bytes.extend(weight.to_le_bytes());
    }
    bytes.extend([3, 4, 0, 0x80]);
    bytes
}

#[test]
fn model_bytes_are_read() {
    let encoder = StaticEncoder::from_bytes(&tiny()).unwrap();
    assert_eq!((encoder.name(), encoder.dim()), ("tiny", 2));
    let query = encoder.encode_query("ab");
    assert_eq!(query.tokens, ["a", "b"]);
    for (got, expected) in query.vectors.iter().zip([0.6f32, 0.8, 0.0, -0.5]) {
        assert!((got - expected).abs() < 1e-6, "{:?}", query.vectors);
    }
}

#[test]
fn hostile_model_bytes_are_refused() {
    let good = tiny();
    for len in 0..good.len() {
        assert!(matches!(StaticEncoder::from_bytes(&good[..len]), Err(Error::Format { .. })), "{len} bytes");
    }
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        StaticEncoder::from_bytes(&bytes)
    };
    assert!(matches!(patched(8, &[9]), Err(Error::Version { .. })));
    let nan = f32::NAN.to_le_bytes();
    let hostile: [(usize, &[u8]); 13] = [
        (0, b"x"),
        (12, &[0, 0, 0, 0]),       // no dimension
        (12, &[0xff; 4]),          // huge dimension
        (16, &[0, 0, 0, 0]),       // no tokens
        (16, &[0xff; 4]),          // huge token count
        (20, &[0xff; 4]),          // huge name
        (24, &[0xff; 4]),          // huge vocabulary
        (28, &[0xff]),             // name is not UTF-8
        (32, &[0xff]),             // vocabulary is not UTF-8
        (32, b"a\na\nb"),          // another token count
        (37, &nan),                // weight is not a number
        (37, &[0, 0, 0x80, 0xbf]), // weight is negative
        (45, &[0, 0]),             // row is zero
    ];
    for (at, with) in hostile {
        assert!(matches!(patched(at, with), Err(Error::Format { .. })), "{with:?} at {at}");
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(matches!(StaticEncoder::from_bytes(&longer), Err(Error::Format { .. })));
}

proptest! {
    #[test]
    fn any_bytes_give_a_model_or_an_error(at in 0usize..49, with in any::<u8>(), cut in 0usize..49) {
        let mut bytes = tiny();
        bytes[at] = with;
        let _ = StaticEncoder::from_bytes(&bytes).map(|e| e.encode_query("ab"));
        let _ = StaticEncoder::from_bytes(&bytes[cut..]);
    }

    #[test]
    fn shapes_agree_and_spans_hold_the_tokens(text in "(\\PC|[a-z ]){0,80}") {
        let encoded = encoder().encode_document(&text);
        prop_assert_eq!(encoded.vectors.len(), encoded.tokens.len() * encoder().dim());
        prop_assert_eq!(encoded.spans.len(), encoded.tokens.len());
        for (token, &(start, end)) in encoded.tokens.iter().zip(&encoded.spans) {
            prop_assert_eq!(token.as_str(), &text[start as usize..end as usize]);
        }
        prop_assert!(norms(&encoded).iter().all(|n| (n - 1.0).abs() < 1e-5));
    }
}

#[cfg(feature = "demo-corpus")]
mod search {
    use super::*;
    use maxsim_encode::corpus::WORDNET;

    #[test]
    fn corpus_has_the_promised_form() {
        let words: Vec<&str> = WORDNET.lines().map(|l| l.split_once('\t').unwrap().0).collect();
        assert!((10_000..=12_000).contains(&words.len()) && WORDNET.len() <= 1_200_000);
        assert!(words.is_sorted() && words.contains(&"submarine"));
    }

    #[test]
    fn words_are_found_by_their_meaning() {
        let (words, glosses): (Vec<&str>, Vec<&str>) =
            WORDNET.lines().map(|l| l.split_once('\t').unwrap()).unzip();
        let dim = encoder().dim();
        let batch = encoder().encode_documents(&glosses, |_| ());
        for (meaning, word) in [
            ("warship that dives under water and fires torpedoes", "submarine"),
            ("mountain that spits lava", "volcano"),
            ("insect that makes honey", "honeybee"),
            ("person who writes poems", "poet"),
            ("fear of closed spaces", "claustrophobia"),
            ("frozen water falling from the sky", "snow"),
            ("instrument that measures temperature", "thermometer"),
            ("government by the people", "democracy"),
            ("shop that sells bread", "bakery"),
        ] {
            let query = encoder().encode_query(meaning);
            let score = |document: usize| -> f32 {
                let rows = batch.offsets[document] as usize * dim..batch.offsets[document + 1] as usize * dim;
                query
                    .vectors
                    .chunks(dim)
                    .map(|q| {
                        let dots = batch.vectors[rows.clone()]
                            .chunks(dim)
                            .map(|d| q.iter().zip(d).map(|(a, b)| a * b).sum::<f32>());
                        dots.fold(f32::NEG_INFINITY, f32::max)
                    })
                    .sum()
            };
            let mut ranking: Vec<(f32, &str)> = (0..words.len()).map(|i| (score(i), words[i])).collect();
            ranking.sort_by(|a, b| b.0.total_cmp(&a.0));
            let top: Vec<&str> = ranking.iter().take(10).map(|r| r.1).collect();
            assert!(top.contains(&word), "{meaning}: {top:?}");
        }
    }
}
