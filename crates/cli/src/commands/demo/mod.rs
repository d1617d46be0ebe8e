//! `maxsim demo`: find the word by its meaning.

mod cache;

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use maxsim::{
    CorpusOptions, DType, DataBuf, Documents, Error, Op, Options, Retrieve, RetrieveOptions, SearchOptions,
    Tokens,
};
use maxsim_encode::{Encoder, StaticEncoder, corpus::WORDNET};
use serde::Serialize;

use super::plan::PlanInfo;
use crate::exit::Outcome;
use crate::input::token_texts;
use crate::matches::{Match, Texts, matches, table};
use crate::operand::Operand;
use crate::output::{self, Out, Style, columns, pad, wrap};
use crate::setup::{self, Global};

const QUERY: &str = "fear of closed spaces";

/// Find the word by its meaning: search the glosses of 12,000 English nouns
///
/// Glosses of WordNet are encoded with the built-in encoder (once; then they are read from the cache directory) and
/// searched on the engine that the options ask for. Under each hit stands which token of the gloss answered which token
/// of the query, and what that added to the score.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim demo
  maxsim demo \"someone who repairs shoes\"
  maxsim demo \"a bird that cannot fly\" --top-k 3 --json

With --json one object: query, documents, tokens, dim, cached, plan {backend, kernel, choices, notes}, times_ms {encode,
index, search} and hits; a hit is {rank, id, word, gloss, score, matches}, a match {query_token, query_text,
document_token, document_text, similarity}. Similarities add up to the score.")]
pub(crate) struct DemoArgs {
    /// What to look for
    #[arg(default_value = QUERY)]
    query: String,
    /// Words to show
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = setup::positive())]
    top_k: usize,
    /// Neither read nor write the cache directory
    #[arg(long)]
    no_cache: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    query: &'a str,
    documents: usize,
    tokens: usize,
    dim: usize,
    cached: bool,
    plan: PlanInfo,
    times_ms: Times,
    hits: Vec<Hit<'a>>,
}

#[derive(Serialize)]
struct Times {
    encode: f64,
    index: f64,
    search: f64,
}

#[derive(Serialize)]
struct Hit<'a> {
    rank: usize,
    id: u32,
    word: &'a str,
    gloss: &'a str,
    score: f32,
    matches: Vec<Match>,
}

/// Runs `maxsim demo`.
pub(crate) fn run(global: &Global, args: &DemoArgs) -> anyhow::Result<Outcome> {
    let engine = global.engine()?;
    let encoder = StaticEncoder::embedded()?;
    let (words, glosses): (Vec<&str>, Vec<&str>) =
        WORDNET.lines().filter_map(|line| line.split_once('\t')).unzip();
    let query = encoder.encode_query(&args.query);
    if query.tokens.is_empty() {
        let expected = "text with a word that the encoder can spell";
        return Err(Error::value("query", expected, format!("{:?}", args.query)).into());
    }

    let start = Instant::now();
    let (documents, cached) = documents(encoder, &glosses, args.no_cache);
    let encode = start.elapsed();

    // The encoder gives documents of unit length and queries as long as their tokens are important: nothing to normalise.
    let start = Instant::now();
    let options = CorpusOptions { normalize: false, ..CorpusOptions::default() };
    let tokens = documents.tokens()?;
    let corpus = engine.corpus(tokens.clone(), options)?;
    let index = start.elapsed();

    let start = Instant::now();
    let q = Tokens::padded(&query.vectors, &[query.tokens.len(), encoder.dim()])?;
    let found = corpus.search(q.clone(), SearchOptions::top_k(args.top_k).with_explain())?;
    let search = start.elapsed();

    let options =
        RetrieveOptions { scoring: Options::default().with_argmax(), ..RetrieveOptions::top_k(args.top_k) };
    let plan = engine.explain(&Op::Retrieve(Retrieve::new(q.clone(), corpus.documents(), options)))?;
    let query_texts = token_texts(&args.query, &encoder.document_pieces(&args.query)?);
    let held = Documents::Tokens(tokens.clone());
    let hit = |(rank, (id, score)): (usize, (u32, f32))| -> anyhow::Result<Hit<'_>> {
        let gloss = glosses[id as usize];
        let texts = token_texts(gloss, &encoder.document_pieces(gloss)?);
        let texts = Texts { query: Some(&query_texts), document: Some(&texts) };
        let winners = found.argmax.as_ref().map_or(&[][..], |argmax| argmax.pair(rank));
        let matches = matches((&q, 0), (&held, id as usize), winners, false, texts);
        Ok(Hit { rank: rank + 1, id, word: words[id as usize], gloss, score, matches })
    };
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let report = Report {
        query: &args.query,
        documents: tokens.count(),
        tokens: tokens.slots(),
        dim: tokens.dim(),
        cached,
        times_ms: Times {
            encode: milliseconds(encode),
            index: milliseconds(index),
            search: milliseconds(search),
        },
        hits: found.hits(0).enumerate().map(hit).collect::<anyhow::Result<_>>()?,
        plan: (&plan).into(),
    };
    let mut out = Out::stdout();
    if args.json {
        out.json(&report)?;
    } else {
        let weights: Vec<f32> = (0..q.slots())
            .map(|row| q.vector(row).iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE))
            .collect();
        print(&report, &weights, &plan.to_string(), corpus.bytes(), &mut out)?;
    }
    Ok(Outcome::Success)
}

/// The encoded glosses, and whether they came from the cache. Without a cache directory, or with one that cannot be
/// written, everything works and takes a little longer.
fn documents(encoder: &StaticEncoder, glosses: &[&str], no_cache: bool) -> (Operand, bool) {
    let key = cache::Key::new(encoder, glosses);
    let path = setup::cache_directory().filter(|_| !no_cache).map(|directory| key.path(&directory));
    if let Some(path) = &path
        && path.exists()
    {
        match cache::read(path, key) {
            Ok(operand) => return (operand, true),
            Err(problem) => tracing::warn!("the cache file is made anew: {problem}: {}", path.display()),
        }
    }
    let bar = output::progress(glosses.len(), "encoding");
    let batch = encoder.encode_documents(glosses, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    // Half the memory and, where memory is slow, half the time; a cached run computes on the very same numbers.
    let DataBuf::F16(vectors) = DataBuf::from_f32(&batch.vectors, DType::F16) else {
        unreachable!("from_f32 gives the type it was asked for")
    };
    let operand = cache::operand(vectors, batch.offsets, batch.dim);
    if let Some(path) = &path
        && let Err(error) = cache::write(path, key, &operand)
    {
        tracing::warn!("the encoded glosses cannot be cached: {}: {error}", path.display());
    }
    (operand, false)
}

fn print(report: &Report<'_>, weights: &[f32], plan: &str, bytes: u64, out: &mut Out) -> std::io::Result<()> {
    let style = Style::stdout();
    let width = output::width();
    writeln!(out, "{}", style.strong(report.query))?;
    let word_width = report.hits.iter().map(|hit| columns(hit.word)).max().unwrap_or(0);
    for hit in &report.hits {
        let indent = 4 + word_width + 2;
        // The gloss stands beside its word where there is room for it, below where there is not.
        let head = format!("{:>2}  {}", hit.rank, style.hit(&pad(hit.word, word_width)));
        let lines = wrap(hit.gloss, width.saturating_sub(indent + 8));
        writeln!(out)?;
        writeln!(out, "{head}  {}  {}", style.strong(&format!("{:.3}", hit.score)), lines[0])?;
        for line in &lines[1..] {
            writeln!(out, "{:indent$}       {line}", "")?;
        }
        // By cosine: an unimportant word that is matched exactly is a good match that adds little.
        let cosine = |m: &Match| m.similarity.unwrap_or(0.0) / weights[m.query_token];
        for line in table(&hit.matches, cosine, style, 4, width) {
            writeln!(out, "{line}")?;
        }
    }
    let source = if report.cached { "read from the cache" } else { "encoded" };
    let time = |ms: f64| output::duration(Duration::from_secs_f64(ms / 1e3));
    writeln!(out)?;
    let lines = [
        format!(
            "{} glosses of WordNet 3.0 (© 2006 Princeton University), {} tokens × {} dimensions, {}",
            output::grouped(report.documents),
            output::grouped(report.tokens),
            report.dim,
            output::bytes(bytes),
        ),
        plan.to_owned(),
        format!(
            "{source} in {}, indexed in {}, searched in {}",
            time(report.times_ms.encode),
            time(report.times_ms.index),
            time(report.times_ms.search)
        ),
    ];
    for line in lines {
        writeln!(out, "{}", style.dim(&line))?;
    }
    out.flush()
}
