//! An index on disk, from 12,000 word meanings: built, added to, filtered, searched.
//! `cargo run --release -p maxsim --example index -- "someone who repairs shoes"`.

use maxsim::plaid::store::DirectoryStorage;
use maxsim::plaid::{
    BuildOptions, Builder, EncoderRecord, Filter, Index, IndexWriter, Row, Selection, Value,
};
use maxsim::{PlaidOptions, Tokens};
use maxsim_encode::{Encoder, StaticEncoder, corpus::WORDNET};

/// Documents per batch, as if they came from a file too large for memory.
const BATCH: usize = 2000;

fn main() -> maxsim::Result<()> {
    let text = std::env::args().nth(1).unwrap_or_else(|| "someone who repairs shoes".into());
    let entries: Vec<(&str, &str)> = WORDNET.lines().filter_map(|line| line.split_once('\t')).collect();
    let encoder = StaticEncoder::embedded()?;
    let engine = maxsim::engine()?;
    let directory = std::env::temp_dir().join(format!("maxsim-example-{}", std::process::id()));

    // The index remembers its encoder, so that nobody asks it with vectors of another one.
    let record = EncoderRecord {
        name: encoder.name().to_owned(),
        location: String::new(),
        fingerprint: encoder.model_fingerprint(),
    };
    let options = BuildOptions { encoder: Some(record.clone()), ..BuildOptions::default() };
    let mut builder = Builder::new(&engine, DirectoryStorage::new(&directory), options)?;
    let encode = |batch: &[(&str, &str)]| {
        let glosses: Vec<&str> = batch.iter().map(|&(_, gloss)| gloss).collect();
        encoder.encode_documents(&glosses, |_| ())
    };
    let metadata = |batch: &[(&str, &str)]| -> Vec<Row> {
        let row = |&(word, gloss): &(&str, &str)| {
            vec![
                ("word".to_owned(), Value::Text(word.to_owned())),
                ("length".to_owned(), Value::Int(gloss.len() as i64)),
            ]
        };
        batch.iter().map(row).collect()
    };
    let (first, rest) = entries.split_at(entries.len() - 100);
    for batch in first.chunks(BATCH) {
        let d = encode(batch);
        builder.sample(&Tokens::packed(&d.vectors, d.dim, &d.offsets)?)?;
    }
    builder.train(&mut |_| ())?;
    for batch in first.chunks(BATCH) {
        let d = encode(batch);
        builder.add(&Tokens::packed(&d.vectors, d.dim, &d.offsets)?, None, &metadata(batch))?;
    }
    builder.finish()?;

    // Later, perhaps in another process.
    let mut writer = IndexWriter::open(&engine, &directory)?;
    let d = encode(rest);
    writer.add(&Tokens::packed(&d.vectors, d.dim, &d.offsets)?, None, &metadata(rest))?;
    writer.commit()?;

    let index = Index::open(&directory)?;
    index.encoder().expect("set above").check(&record)?;
    let info = index.info();
    println!("{} documents, {:.1} bytes a token", info.documents, info.bytes_per_token());
    let query = encoder.encode_query(&text);
    let short = Filter::parse("length < ?", &[Value::Int(60)])?;
    // Queries of this encoder are as long as their tokens matter.
    let options = PlaidOptions { normalize: false, ..PlaidOptions::top_k(5) };
    let q = Tokens::padded(&query.vectors, &[1, query.tokens.len(), encoder.dim()])?;
    for filter in [None, Some(&short)] {
        println!("{text}{}", if filter.is_some() { ", in short" } else { "" });
        for hit in &index.search(&engine, q.clone(), options, Selection { filter, ids: None })?[0] {
            let row = index.metadata(&hit.id).expect("a hit is a document");
            let Some((_, Value::Text(word))) = row.iter().find(|(name, _)| name == "word") else { continue };
            println!("  {:.3}  {word}", hit.score);
        }
    }
    drop((writer, index));
    std::fs::remove_dir_all(&directory).map_err(|error| maxsim::Error::io("the example's index", error))
}
