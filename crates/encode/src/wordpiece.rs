//! BERT's uncased tokenizer: normalise characters, split into words, cut words into the longest known pieces.

use std::collections::HashMap;

use crate::unicode_tables::{DROPPED, ONE, PUNCTUATION, SEVERAL};

/// Words of more characters are not looked up, as in the reference.
const MAX_WORD_CHARS: usize = 100;

/// A piece of the input: its id and the bytes of the input it stands for. No id: the word cannot be spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: Option<u32>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A vocabulary, split by where in a word a piece may stand.
#[derive(Debug)]
pub(crate) struct WordPiece {
    initial: HashMap<Box<str>, u32>,
    continuing: HashMap<Box<str>, u32>,
    /// Bytes of the longest piece; no longer candidate is worth a look-up.
    longest: usize,
}

/// A normalised character and the bytes of the input it came from.
#[derive(Clone, Copy)]
struct Char {
    value: char,
    start: usize,
    end: usize,
}

impl WordPiece {
    /// A vocabulary from its tokens in the order of their ids; pieces that continue a word start with `##`.
    /// `None` if one is there twice, or empty.
    pub(crate) fn new<'a>(tokens: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut vocabulary = Self { initial: HashMap::new(), continuing: HashMap::new(), longest: 0 };
        for (id, token) in (0..).zip(tokens) {
            // `##` alone is the start of a word of two number signs, which punctuation splitting never lets through.
            let (map, piece) = match token.strip_prefix("##") {
                Some(piece) if !piece.is_empty() => (&mut vocabulary.continuing, piece),
                _ => (&mut vocabulary.initial, token),
            };
            if piece.is_empty() || map.insert(piece.into(), id).is_some() {
                return None;
            }
            vocabulary.longest = vocabulary.longest.max(piece.len());
        }
        Some(vocabulary)
    }

    /// Calls `emit` for every piece in the order of the text, until it returns `false`.
    pub(crate) fn tokenize(&self, text: &str, mut emit: impl FnMut(Piece) -> bool) {
        let mut word = Word::default();
        for (start, c) in text.char_indices() {
            let end = start + c.len_utf8();
            if within(DROPPED, c) {
                // An accent, or a joiner within a word: shown with the character it follows.
                if let Some(last) = word.chars.last_mut() {
                    last.end = end;
                }
                continue;
            }
            if c.is_whitespace() {
                if !self.flush(&mut word, &mut emit) {
                    return;
                }
                continue;
            }
            let alone = is_ideograph(c);
            let mut go_on = true;
            fold(c, |value| {
                let alone = alone || within(PUNCTUATION, value);
                go_on = go_on && (!alone || self.flush(&mut word, &mut emit));
                word.chars.push(Char { value, start, end });
                go_on = go_on && (!alone || self.flush(&mut word, &mut emit));
            });
            if !go_on {
                return;
            }
        }
        self.flush(&mut word, &mut emit);
    }

    /// Cuts the collected word into pieces, greedily from the left, and forgets it. `false`: stop.
    fn flush(&self, word: &mut Word, emit: &mut impl FnMut(Piece) -> bool) -> bool {
        let (Some(first), Some(last)) = (word.chars.first(), word.chars.last()) else { return true };
        let whole = Piece { id: None, start: first.start, end: last.end };
        word.pieces.clear();
        let mut at = if word.chars.len() > MAX_WORD_CHARS { None } else { Some(0) };
        while let Some(from) = at.filter(|&from| from < word.chars.len()) {
            at = self.longest_piece(&word.chars[from..], from == 0, &mut word.text).map(|(id, taken)| {
                let (start, end) = (word.chars[from].start, word.chars[from + taken - 1].end);
                word.pieces.push(Piece { id: Some(id), start, end });
                from + taken
            });
        }
        let pieces = if at.is_some() { word.pieces.as_slice() } else { &[whole] };
        let go_on = pieces.iter().all(|&piece| emit(piece));
        word.chars.clear();
        go_on
    }

    /// The longest piece that `chars` begin with: its id and its length in characters.
    fn longest_piece(&self, chars: &[Char], initial: bool, text: &mut String) -> Option<(u32, usize)> {
        let map = if initial { &self.initial } else { &self.continuing };
        text.clear();
        text.extend(chars.iter().map(|c| c.value).take(self.longest));
        let mut taken = text.chars().count();
        while taken > 0 {
            if text.len() <= self.longest
                && let Some(&id) = map.get(text.as_str())
            {
                return Some((id, taken));
            }
            text.pop();
            taken -= 1;
        }
        None
    }
}

/// The word being collected, with buffers that are used again for the next.
#[derive(Default)]
struct Word {
    chars: Vec<Char>,
    text: String,
    pieces: Vec<Piece>,
}

/// Lower case without accents (canonical decomposition less non-spacing marks).
fn fold(c: char, mut emit: impl FnMut(char)) {
    let point = u32::from(c);
    if c.is_ascii() {
        emit(c.to_ascii_lowercase());
    } else if let Ok(at) = ONE.binary_search_by_key(&point, |e| e.0) {
        emit(char::from_u32(ONE[at].1).unwrap_or(c));
    } else if let Ok(at) = SEVERAL.binary_search_by_key(&point, |e| e.0) {
        SEVERAL[at].1.chars().for_each(emit);
    } else if let Some(syllable @ 0..11_172) = point.checked_sub(0xac00) {
        // Hangul syllables decompose by arithmetic (The Unicode Standard, section 3.12).
        let trailing = syllable % 28;
        let jamo = [0x1100 + syllable / 588, 0x1161 + syllable % 588 / 28, 0x11a7 + trailing];
        let count = if trailing == 0 { 2 } else { 3 };
        jamo[..count].iter().filter_map(|&j| char::from_u32(j)).for_each(emit);
    } else {
        c.to_lowercase().for_each(emit);
    }
}

/// Whether one of the sorted ranges holds the character.
fn within(ranges: &[(u32, u32)], c: char) -> bool {
    let point = u32::from(c);
    let after = ranges.partition_point(|r| r.0 <= point);
    after > 0 && point <= ranges[after - 1].1
}

/// The blocks that BERT takes as ideographs, each of which is a word.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x20000..=0x2a6df | 0x2a700..=0x2b73f | 0x2b740..=0x2b81f
        | 0x2b920..=0x2ceaf | 0xf900..=0xfaff | 0x2f800..=0x2fa1f)
}

#[cfg(all(test, feature = "static-en"))]
mod tests {
    use std::{collections::BTreeMap, sync::OnceLock};

    use proptest::prelude::*;
    use tokenizers::Tokenizer;

    use super::*;
    use crate::model::Model;

    struct Fixture {
        model: Model,
        tokens: BTreeMap<u32, String>,
        reference: Tokenizer,
    }

    fn fixture() -> &'static Fixture {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        FIXTURE.get_or_init(|| {
            let model = Model::parse(crate::STATIC_EN.into()).unwrap();
            let mut tokens: BTreeMap<u32, String> =
                model.words.initial.iter().map(|(t, &id)| (id, t.to_string())).collect();
            tokens.extend(model.words.continuing.iter().map(|(t, &id)| (id, format!("##{t}"))));

            let mut vocabulary: serde_json::Map<_, _> =
                tokens.iter().map(|(&id, t)| (t.clone(), id.into())).collect();
            vocabulary.insert("[UNK]".to_owned(), tokens.len().into());
            let reference = serde_json::json!({
                "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
                "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                    "strip_accents": null, "lowercase": true },
                "pre_tokenizer": { "type": "BertPreTokenizer" },
                "post_processor": null, "decoder": null,
                "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100, "vocab": vocabulary },
            });
            let reference = reference.to_string().parse().unwrap();
            Fixture { model, tokens, reference }
        })
    }

    fn pieces(text: &str) -> Vec<Piece> {
        let mut out = Vec::new();
        fixture().model.words.tokenize(text, |piece| {
            out.push(piece);
            true
        });
        out
    }

    fn names(text: &str) -> Vec<&'static str> {
        let tokens = &fixture().tokens;
        pieces(text).iter().map(|p| p.id.map_or("[UNK]", |id| &tokens[&id])).collect()
    }

    fn reference(text: &str) -> Vec<String> {
        fixture().reference.encode(text, false).unwrap().get_tokens().to_vec()
    }

    #[test]
    fn original_tokenizer_agrees() {
        let goldens: Vec<(String, Vec<String>)> =
            serde_json::from_str(include_str!("../tests/goldens.json")).unwrap();
        assert!(goldens.len() > 10);
        for (text, expected) in goldens {
            assert_eq!(names(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_character_agrees_with_the_reference() {
        // Within a word, where joining and splitting show. Many characters per call: the reference is slow to start.
        let all: Vec<char> = (char::MIN..=char::MAX).collect();
        for group in all.chunks(4096) {
            let text: String = group.iter().flat_map(|&c| ['a', c, 'b', ' ']).collect();
            if names(&text) != reference(&text) {
                for c in group {
                    let text = format!("a{c}b");
                    assert_eq!(names(&text), reference(&text), "U+{:04X}", u32::from(*c));
                }
                panic!("differs in company only, from {:?}", group[0]);
            }
        }
    }

    #[test]
    fn tokenizing_stops_when_told() {
        let mut seen = 0;
        fixture().model.words.tokenize("one two three", |_| {
            seen += 1;
            seen < 2
        });
        assert_eq!(seen, 2);
    }

    #[test]
    fn vocabularies_that_are_not_sets_are_refused() {
        assert!(WordPiece::new(["a", "##a"].into_iter()).is_some());
        assert!(WordPiece::new(["a", "b", "a"].into_iter()).is_none());
        assert!(WordPiece::new(["a", ""].into_iter()).is_none());
    }

    proptest! {
        #[test]
        fn random_text_agrees_with_the_reference(text in "(\\PC|[a-z \u{300}-\u{330}\u{200b}\n]){0,60}") {
            prop_assert_eq!(names(&text), reference(&text));
        }

        #[test]
        fn spans_are_ordered_and_on_character_boundaries(text in "(\\PC|[a-zéß\u{301} .]){0,60}") {
            let mut last = 0;
            for piece in pieces(&text) {
                prop_assert!(piece.start < piece.end && text.get(piece.start..piece.end).is_some());
                // Several pieces can come from one character (a Hangul syllable), none from an earlier one.
                prop_assert!(piece.start >= last);
                last = piece.start;
            }
        }
    }
}
