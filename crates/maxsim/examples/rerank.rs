//! Finds the word by its meaning: `cargo run --release -p maxsim --example rerank -- "someone who repairs shoes"`.

use maxsim::{CorpusOptions, SearchOptions, Tokens};
use maxsim_encode::{StaticEncoder, corpus::WORDNET};

fn main() -> maxsim::Result<()> {
    let text = std::env::args().nth(1).unwrap_or_else(|| "fear of closed spaces".into());
    let (words, glosses): (Vec<&str>, Vec<&str>) = WORDNET.lines().filter_map(|l| l.split_once('\t')).unzip();
    let encoder = StaticEncoder::embedded()?;
    let query = encoder.encode_query(&text);
    let documents = encoder.encode_documents(&glosses, |_| ());

    // The encoder's documents have unit length and its queries are as long as their tokens matter: nothing to normalise.
    let options = CorpusOptions { normalize: false, ..CorpusOptions::default() };
    let engine = maxsim::engine()?;
    let corpus =
        engine.corpus(Tokens::packed(&documents.vectors, documents.dim, &documents.offsets)?, options)?;
    let q = Tokens::padded(&query.vectors, &[query.tokens.len(), documents.dim])?;
    let found = corpus.search(q, SearchOptions::top_k(5).with_explain())?;

    let argmax = found.argmax.as_ref().expect("asked for");
    for (rank, (id, score)) in found.hits(0).enumerate() {
        let (word, gloss) = (words[id as usize], glosses[id as usize]);
        println!("{:>2}  {word}  {score:.3}  {gloss}", rank + 1);
        let tokens = encoder.encode_document(gloss).tokens;
        for (query_token, &winner) in query.tokens.iter().zip(argmax.pair(rank)) {
            // -1, which no position is, where nothing matches: in a gloss without tokens.
            let matched = usize::try_from(winner).map_or("nothing", |t| &tokens[t]);
            println!("      {query_token:>12} → {matched}");
        }
    }
    Ok(())
}
