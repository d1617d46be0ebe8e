//! Text to try search on.

/// Twelve thousand common English nouns and what they mean, `word<TAB>gloss` per line in alphabetical order, UTF-8.
///
/// Search the glosses, show the words: "frozen water falling from the sky" finds *snow*. From WordNet 3.0, copyright
/// 2006 by Princeton University, under the licence in `assets/WORDNET-LICENSE`, which goes wherever the text goes.
pub const WORDNET: &str = include_str!("../assets/wordnet-glosses.tsv");
