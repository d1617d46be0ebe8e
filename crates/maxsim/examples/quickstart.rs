//! The shortest whole program: texts, a question, the best text. `cargo run --release -p maxsim --example quickstart`.

use maxsim::{CorpusOptions, SearchOptions, Tokens};
use maxsim_encode::StaticEncoder;

fn main() -> maxsim::Result<()> {
    let texts = ["a recipe for bread", "the submarine dived below the sea", "taxes are due in april"];
    let encoder = StaticEncoder::embedded()?;
    let documents = encoder.encode_documents(&texts, |_| ());

    let engine = maxsim::engine()?;
    let options = CorpusOptions { normalize: false, ..CorpusOptions::default() };
    let tokens = Tokens::packed(&documents.vectors, documents.dim, &documents.offsets)?;
    let corpus = engine.corpus(tokens, options)?;

    let query = encoder.encode_query("ships under water");
    let q = Tokens::padded(&query.vectors, &[query.tokens.len(), documents.dim])?;
    for (id, score) in corpus.search(q, SearchOptions::top_k(3))?.hits(0) {
        println!("{score:.3}  {}", texts[id as usize]);
    }
    Ok(())
}
