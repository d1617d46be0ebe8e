//! Text to token ids, and which part of the text each stands for.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use maxsim_core::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{PostProcessor, Tokenizer};

use super::folder::{Settings, bytes, json, missing, named};
use crate::encoder::Pieces;
use crate::fingerprint::Fingerprint;

const FILE: &str = "tokenizer.json";

/// The tokenizer of a model, and what the model adds to texts.
pub(super) struct Text {
    tokenizer: Tokenizer,
    query: Side,
    document: Side,
    mask: u32,
    expansion: bool,
    attend_to_expansion: bool,
    skipped: HashSet<u32>,
    prompt: String,
    lower_case: bool,
}

/// How queries or documents are made.
struct Side {
    prefix: Option<(u32, String)>,
    /// Tokens at most.
    length: usize,
    /// Tokens at most that come from the text.
    room: usize,
}

/// Queries and documents are tokenized differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Query,
    Document,
}

/// A text as the model reads it.
pub(super) struct Sequence {
    /// Token ids.
    pub(super) ids: Vec<u32>,
    /// The first so many tokens are attended to.
    pub(super) attended: usize,
    /// Whether a token has a row in the result.
    pub(super) kept: Vec<bool>,
}

/// A text as the model reads it, and where its tokens come from.
struct Parts<'t> {
    sequence: Sequence,
    /// Bytes of the input that each token stands for; mask tokens behind the text have none.
    ranges: Vec<(usize, usize)>,
    input: Input<'t>,
}

impl Sequence {
    /// Rows of the result.
    pub(super) fn rows(&self) -> usize {
        self.kept.iter().filter(|&&kept| kept).count()
    }
}

impl Text {
    /// Reads the tokenizer in `folder`.
    pub(super) fn open(folder: &Path, settings: &Settings, fingerprint: &mut Fingerprint) -> Result<Self> {
        let fail = |problem: String| Error::format(named(folder, FILE), problem);
        let content = bytes(folder, FILE)?.ok_or_else(|| missing(folder, FILE))?;
        fingerprint.add(&content);
        let mut tokenizer = Tokenizer::from_bytes(&content).map_err(|error| fail(error.to_string()))?;
        // Done here, for queries and documents apart.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| fail(error.to_string()))?;

        let added = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let side = |name: &str, prefix: &str, length: usize| {
            let id = |prefix: &str| {
                tokenizer.token_to_id(prefix).ok_or_else(|| {
                    fail(format!(
                        "the {name} prefix {prefix:?} is no token: not the tokenizer of a ColBERT model"
                    ))
                })
            };
            let prefix =
                (!prefix.is_empty()).then(|| Ok::<_, Error>((id(prefix)?, prefix.to_owned()))).transpose()?;
            let fixed = added + usize::from(prefix.is_some());
            if length <= fixed {
                let expected = format!("more than {fixed}, the tokens that every {name} has");
                return Err(Error::value(format!("{name}_length"), expected, length.to_string()));
            }
            Ok(Side { prefix, length, room: length - fixed })
        };
        let query = side("query", &settings.query_prefix, settings.query_length)?;
        let document = side("document", &settings.document_prefix, settings.document_length)?;

        let names = Names::read(folder)?;
        let mask = tokenizer.token_to_id(&names.mask);
        if settings.expansion && mask.is_none() {
            return Err(fail(format!("no token {:?}, which queries are filled up with", names.mask)));
        }
        // As in the reference: a word that is no token skips the token of unknown words.
        let unknown = tokenizer.token_to_id(&names.unknown);
        let skipped =
            settings.skiplist.iter().filter_map(|word| tokenizer.token_to_id(word).or(unknown)).collect();
        Ok(Self {
            query,
            document,
            mask: mask.unwrap_or(0),
            expansion: settings.expansion,
            attend_to_expansion: settings.attend_to_expansion,
            skipped,
            prompt: settings.prompt.clone(),
            lower_case: settings.lower_case,
            tokenizer,
        })
    }

    /// The largest id that the tokenizer can give.
    pub(super) fn largest_id(&self) -> u32 {
        self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0)
    }

    fn side(&self, role: Role) -> &Side {
        match role {
            Role::Query => &self.query,
            Role::Document => &self.document,
        }
    }

    /// Ids of a text.
    pub(super) fn sequence(&self, role: Role, text: &str) -> Result<Sequence> {
        Ok(self.parts(role, text)?.sequence)
    }

    /// Ids of a text, and what its rows stand for.
    pub(super) fn with_pieces(&self, role: Role, text: &str) -> Result<(Sequence, Pieces)> {
        let Parts { sequence, ranges, input } = self.parts(role, text)?;
        let mut pieces = Pieces::default();
        for i in (0..sequence.ids.len()).filter(|&i| sequence.kept[i]) {
            let (start, end) = ranges.get(i).map_or((0, 0), |&range| input.within(text, range));
            let name = || match &self.side(role).prefix {
                // Its name as the tokenizer has it may be in lower case.
                Some((id, name)) if *id == sequence.ids[i] => name.clone(),
                _ => self.tokenizer.id_to_token(sequence.ids[i]).unwrap_or_default(),
            };
            pieces.tokens.push(match &text[start..end] {
                "" => name().trim().to_owned(),
                token => token.to_owned(),
            });
            pieces.spans.push((start as u32, end as u32));
        }
        Ok((sequence, pieces))
    }

    fn parts<'t>(&self, role: Role, text: &'t str) -> Result<Parts<'t>> {
        let side = self.side(role);
        let input = Input::new(&self.prompt, text, self.lower_case);
        let fail = |error: tokenizers::Error| Error::format(FILE, error.to_string());
        let mut encoding = self.tokenizer.encode(input.text.as_ref(), false).map_err(fail)?;
        encoding.truncate(side.room, 0, tokenizers::TruncationDirection::Right);
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(fail)?;
        let mut ids = encoding.get_ids().to_vec();
        let mut ranges = encoding.get_offsets().to_vec();
        if let Some((prefix, _)) = &side.prefix {
            let at = ids.len().min(1);
            ids.insert(at, *prefix);
            ranges.insert(at, (0, 0));
        }
        let mut attended = ids.len();
        let kept = match role {
            Role::Document => ids.iter().map(|id| !self.skipped.contains(id)).collect(),
            Role::Query => {
                if self.expansion {
                    ids.resize(side.length.max(attended), self.mask);
                }
                if self.attend_to_expansion {
                    attended = ids.len();
                }
                vec![true; ids.len()]
            }
        };
        Ok(Parts { sequence: Sequence { ids, attended, kept }, ranges, input })
    }
}

/// Names of special tokens.
struct Names {
    mask: String,
    unknown: String,
}

impl Names {
    fn read(folder: &Path) -> Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Config {
            mask_token: Value,
            unk_token: Value,
        }
        let config: Config = match json(folder, "tokenizer_config.json")? {
            Some(config) => config,
            None => json(folder, "special_tokens_map.json")?.unwrap_or_default(),
        };
        // A string, or an object that describes the token.
        let name = |value: &Value, usual: &str| {
            value.as_str().or_else(|| value["content"].as_str()).unwrap_or(usual).to_owned()
        };
        Ok(Self { mask: name(&config.mask_token, "[MASK]"), unknown: name(&config.unk_token, "[UNK]") })
    }
}

/// What is tokenized in place of a text: prompt and text without space around them, maybe in lower case.
struct Input<'t> {
    text: Cow<'t, str>,
    /// Bytes cut off in front.
    cut: usize,
    /// Bytes of the prompt.
    prompt: usize,
    /// Where the bytes of a text in lower case come from; empty if they stayed where they were.
    origins: Vec<usize>,
}

impl<'t> Input<'t> {
    fn new(prompt: &str, text: &'t str, lower_case: bool) -> Self {
        // Spans are 32-bit.
        let text = &text[..text.floor_char_boundary(u32::MAX as usize)];
        // As Python strips.
        let space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
        let whole =
            if prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{prompt}{text}")) };
        let cut = whole.len() - whole.trim_start_matches(space).len();
        let mut text = match whole {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_matches(space)),
            Cow::Owned(text) => Cow::Owned(text.trim_matches(space).to_owned()),
        };
        let mut origins = Vec::new();
        if lower_case {
            let lower = text.to_lowercase();
            for (at, c) in text.char_indices() {
                let length: usize = c.to_lowercase().map(char::len_utf8).sum();
                origins.extend(std::iter::repeat_n(at, length));
            }
            origins.push(text.len());
            text = Cow::Owned(lower);
        }
        Self { text, cut, prompt: prompt.len(), origins }
    }

    /// Bytes of the original text that a range of the input stands for, without space around it; empty for the prompt.
    fn within(&self, text: &str, (start, end): (usize, usize)) -> (usize, usize) {
        let back = |at: usize| {
            let at = if self.origins.is_empty() { at } else { self.origins[at.min(self.origins.len() - 1)] };
            (at + self.cut).saturating_sub(self.prompt).min(text.len())
        };
        let (start, end) = (text.floor_char_boundary(back(start)), text.ceil_char_boundary(back(end)));
        if start >= end {
            return (0, 0);
        }
        let part = &text[start..end];
        match part.trim() {
            "" => (start, end),
            word => {
                let start = start + (part.len() - part.trim_start().len());
                (start, start + word.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(prompt: &str, text: &str, lower_case: bool, word: &str) -> String {
        let input = Input::new(prompt, text, lower_case);
        let start = input.text.find(word).expect("the word is in the input");
        let (start, end) = input.within(text, (start, start + word.len()));
        text[start..end].to_owned()
    }

    #[test]
    fn ranges_lead_back_to_the_text() {
        assert_eq!(found("", "a ship", false, "ship"), "ship");
        assert_eq!(found("", "\n  a ship\u{1f}", false, " ship"), "ship");
        assert_eq!(found("query: ", " a ship ", false, "ship"), "ship");
        assert_eq!(found("query: ", "a ship", false, "query"), "", "the prompt is not in the text");
        // İ is two bytes, and three in lower case; Σ at the end of a word becomes another letter than within.
        assert_eq!(found("", " İSTANBUL ΟΔΟΣ Ship", true, "stanbul"), "STANBUL");
        assert_eq!(found("", " İSTANBUL ΟΔΟΣ Ship", true, "οδος"), "ΟΔΟΣ");
        assert_eq!(found("", " İSTANBUL ΟΔΟΣ Ship", true, "ship"), "Ship");
        assert_eq!(Input::new("", " \n", true).text, "");
    }
}
