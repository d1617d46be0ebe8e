//! Documents from files, a few at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use clap::{ArgGroup, Args};
use maxsim::plaid::{Batch, DocumentId, DocumentSource, EncoderRecord, IdKind, Row, Value};
use maxsim::{Error, Result, Tokens, TokensBuf};
use maxsim_formats::{NpyFile, read_npy};

use super::texts::Texts;
use crate::exit::Usage;
use crate::model::ModelArgs;
use crate::setup::{self, Global};

/// Documents for an index.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("any documents").args(["documents", "text"]).required(true))]
pub(super) struct DocumentArgs {
    /// Token vectors: .npy, [Nd, L, d], or [T, d] with --offsets. Read a few documents at a time
    #[arg(long, value_name = "FILE")]
    documents: Option<PathBuf>,
    /// Documents as text: a file with one per line, or a directory of .txt and .md files. Without --metadata, where a text
    /// came from and the text itself are kept in the columns source and text
    #[arg(long, value_name = "PATH")]
    text: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Cut text documents after this many tokens [default: what the model says; the built-in encoder has no limit]
    #[arg(long, value_name = "N", value_parser = setup::positive(), conflicts_with = "documents")]
    max_tokens: Option<usize>,
    /// Offsets of packed documents [Nd + 1]: .npy
    #[arg(long, value_name = "FILE", conflicts_with_all = ["lengths", "text"])]
    offsets: Option<PathBuf>,
    /// Lengths of padded documents [Nd]: .npy
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    lengths: Option<PathBuf>,
    /// Ids, one per line [default: numbers, counted on]
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Metadata, one JSON object per line: numbers, texts, true, false, null by column
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
}

/// Tokens of a batch, if a document is not longer.
const BATCH_TOKENS: usize = 1 << 15;
/// Documents of a batch.
const BATCH_DOCUMENTS: usize = 1 << 12;
/// Texts of a batch: as many as the encoder can sort by length, few enough that a build shows that it goes on.
const BATCH_TEXTS: usize = 256;

/// The files behind [`DocumentArgs`].
pub(super) struct Documents {
    content: Content,
    count: usize,
    ids: Option<(PathBuf, IdKind)>,
    metadata: Option<PathBuf>,
    encoder: Option<EncoderRecord>,
}

/// What documents are.
enum Content {
    Vectors(NpyFile, Rows),
    Texts(Texts),
}

/// Which rows are whose.
enum Rows {
    Packed(Vec<u32>),
    Padded { len: usize, lengths: Option<Vec<u32>> },
}

impl DocumentArgs {
    /// Opens the files; ids are to be of `kind`, and texts encoded by what encoded the documents that are there.
    pub(super) fn open(
        &self,
        global: &Global,
        kind: IdKind,
        there: Option<&EncoderRecord>,
    ) -> anyhow::Result<Documents> {
        if self.ids.is_none() && kind == IdKind::Text {
            return Err(Error::value("ids", "a file of texts, one per document", "none").into());
        }
        let mut encoder = None;
        let (content, count) = match (&self.documents, &self.text) {
            (_, Some(path)) => {
                let encoders = self.model.load_for(there, global, self.max_tokens)?;
                encoder = Some(encoders.record);
                let texts = Texts::open(path, encoders.documents).context("--text")?;
                let count = texts.count();
                (Content::Texts(texts), count)
            }
            (Some(_), _) if self.model.is_given() => {
                return Err(Usage::new("--model encodes --text, and documents are vectors").into());
            }
            (path, _) => self.vectors(path.as_deref().unwrap_or(Path::new("")))?,
        };
        let ids = self.ids.clone().map(|path| (path, kind));
        Ok(Documents { content, count, ids, metadata: self.metadata.clone(), encoder })
    }

    /// Opens vectors, and says how many documents they are.
    fn vectors(&self, path: &Path) -> Result<(Content, usize)> {
        let vectors = NpyFile::open(path)?;
        let integers = |path: &PathBuf, argument| read_npy(path)?.to_u32(argument);
        let shape = vectors.shape().to_vec();
        let (rows, count) = match (&self.offsets, &shape[..]) {
            (Some(offsets), &[tokens, _]) => {
                let offsets = integers(offsets, "offsets")?;
                let total = offsets.last().map_or(0, |&last| last as usize);
                let ascending = offsets.first() == Some(&0) && offsets.is_sorted();
                if !ascending || total != tokens {
                    let expected = format!("ascending numbers from 0 to the {tokens} tokens of --documents");
                    return Err(Error::value("offsets", expected, format!("others, up to {total}")));
                }
                let count = offsets.len() - 1;
                (Rows::Packed(offsets), count)
            }
            (None, &[count, len, _]) => {
                let lengths = self.lengths.as_ref().map(|path| integers(path, "lengths")).transpose()?;
                if let Some(lengths) = lengths.as_ref().filter(|lengths| lengths.len() != count) {
                    let expected = format!("one for each of {count} documents");
                    return Err(Error::shape("lengths", expected, lengths.len().to_string()));
                }
                (Rows::Padded { len, lengths }, count)
            }
            (Some(_), shape) => {
                return Err(Error::shape("documents", "rank 2 [T, d] with --offsets", format!("{shape:?}")));
            }
            (None, shape) => {
                let expected = "rank 3 [Nd, L, d], or [T, d] with --offsets";
                return Err(Error::shape("documents", expected, format!("{shape:?}")));
            }
        };
        Ok((Content::Vectors(vectors, rows), count))
    }

    /// Tells the files from others by names, lengths and times; texts, and what encodes them, by what they are.
    pub(super) fn fingerprint(&self, documents: &Documents) -> Result<String> {
        let files = [
            self.documents.as_ref(),
            self.offsets.as_ref(),
            self.lengths.as_ref(),
            self.ids.as_ref(),
            self.metadata.as_ref(),
        ];
        let mut text = match &documents.content {
            Content::Vectors(..) => String::new(),
            Content::Texts(texts) => format!("texts {:016x}\n", texts.fingerprint()),
        };
        for path in files {
            let Some(path) = path else {
                text += "-\n";
                continue;
            };
            let fail = |error: std::io::Error| Error::io(path.display().to_string(), error);
            let metadata = path.metadata().map_err(fail)?;
            let modified = metadata.modified().map_err(fail)?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let full = path.canonicalize().map_err(fail)?;
            text += &format!("{} {} {}\n", full.display(), metadata.len(), modified.as_nanos());
        }
        Ok(text)
    }
}

impl Documents {
    /// Number of documents.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What encodes them, if they are texts.
    pub(super) fn encoder(&self) -> Option<&EncoderRecord> {
        self.encoder.as_ref()
    }

    /// Documents from `first` that make a batch.
    fn batch(&self, first: usize) -> usize {
        let extent = |document: usize| match &self.content {
            Content::Vectors(_, Rows::Packed(offsets)) => {
                (offsets[document + 1] - offsets[document]) as usize
            }
            Content::Vectors(_, Rows::Padded { len, .. }) => *len,
            // Not known before they are encoded.
            Content::Texts(_) => BATCH_TOKENS / BATCH_TEXTS,
        };
        let (mut end, mut tokens) = (first, 0);
        while end < self.count && end - first < BATCH_DOCUMENTS {
            tokens += extent(end);
            if tokens > BATCH_TOKENS && end > first {
                break;
            }
            end += 1;
        }
        end
    }

    fn tokens(&self, first: usize, end: usize) -> Result<TokensBuf> {
        let (vectors, rows) = match &self.content {
            Content::Texts(texts) => return texts.tokens(first, end),
            Content::Vectors(vectors, rows) => (vectors, rows),
        };
        let dim = vectors.shape().last().copied().unwrap_or(0);
        match rows {
            Rows::Packed(offsets) => {
                let offsets = &offsets[first..=end];
                let array = vectors.rows(offsets[0] as usize..offsets[end - first] as usize)?;
                let offsets: Vec<u32> = offsets.iter().map(|o| o - offsets[0]).collect();
                Ok(Tokens::packed(array.into_vectors("documents")?.as_ref(), dim, &offsets[..])?.to_buf())
            }
            Rows::Padded { len, lengths } => {
                let data = vectors.rows(first..end)?.into_vectors("documents")?;
                let tokens = Tokens::padded(data.as_ref(), &[end - first, *len, dim])?;
                match lengths {
                    Some(lengths) => Ok(tokens.with_lengths(&lengths[first..end])?.to_buf()),
                    None => Ok(tokens.to_buf()),
                }
            }
        }
    }

    fn read(&self, first: usize, end: usize, lines: &mut Sides) -> Result<Batch> {
        let count = end - first;
        let documents = self.tokens(first, end)?;
        let ids = lines.ids.as_mut().map(|(lines, kind)| {
            (0..count).map(|_| lines.next(self.count).and_then(|line| id(&line, *kind, lines))).collect()
        });
        let rows = lines.metadata.as_mut().map(|lines| {
            (0..count).map(|_| lines.next(self.count).and_then(|line| row(&line, lines))).collect()
        });
        if end == self.count {
            lines.ids.as_mut().map_or(Ok(()), |(lines, _)| lines.end(self.count))?;
            lines.metadata.as_mut().map_or(Ok(()), |lines| lines.end(self.count))?;
        }
        let metadata = match (rows.transpose()?, &self.content) {
            (Some(rows), _) => rows,
            (None, Content::Texts(texts)) => (first..end).map(|document| texts.row(document)).collect(),
            (None, Content::Vectors(..)) => Vec::new(),
        };
        Ok(Batch { documents, ids: ids.transpose()?, metadata })
    }
}

/// Files with a line per document.
struct Sides {
    ids: Option<(TextLines, IdKind)>,
    metadata: Option<TextLines>,
}

impl DocumentSource for Documents {
    fn pass(&mut self, first: u64) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        // A build knows how many documents there are: it asks for none behind them.
        let mut first = usize::try_from(first).unwrap_or(usize::MAX).min(self.count);
        let ids =
            self.ids.as_ref().map(|(path, kind)| Ok::<_, Error>((TextLines::open(path, first)?, *kind)));
        let metadata = self.metadata.as_ref().map(|path| TextLines::open(path, first));
        let mut lines = Sides { ids: ids.transpose()?, metadata: metadata.transpose()? };
        let this = &*self;
        Ok(Box::new(std::iter::from_fn(move || {
            if first == this.count {
                return None;
            }
            let end = this.batch(first);
            let batch = this.read(first, end, &mut lines);
            first = end;
            Some(batch)
        })))
    }
}

/// Lines of a file, counted.
struct TextLines {
    name: String,
    lines: Lines<BufReader<File>>,
    read: usize,
}

impl TextLines {
    fn open(path: &Path, skip: usize) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Error::io(&name, error))?;
        let mut lines = Self { name, lines: BufReader::new(file).lines(), read: 0 };
        for _ in 0..skip {
            lines.next(skip)?;
        }
        Ok(lines)
    }

    fn line(&mut self) -> Result<Option<String>> {
        self.lines.next().transpose().map_err(|error| Error::io(&self.name, error))
    }

    fn next(&mut self, expected: usize) -> Result<String> {
        let line = self.line()?;
        self.read += 1;
        line.ok_or_else(|| {
            Error::format(&self.name, format!("{} lines for {expected} documents", self.read - 1))
        })
    }

    fn end(&mut self, expected: usize) -> Result<()> {
        match self.line()? {
            None => Ok(()),
            Some(_) => {
                Err(Error::format(&self.name, format!("more than {expected} lines, one per document")))
            }
        }
    }

    fn fail(&self, problem: impl std::fmt::Display) -> Error {
        Error::format(&self.name, format!("line {}: {problem}", self.read))
    }
}

fn id(line: &str, kind: IdKind, lines: &TextLines) -> Result<DocumentId> {
    kind.parse(line).map_err(|error| lines.fail(error))
}

fn row(line: &str, lines: &TextLines) -> Result<Row> {
    use serde_json::Value as Json;
    let object: serde_json::Map<String, Json> =
        serde_json::from_str(line).map_err(|error| lines.fail(error))?;
    let value = |(name, value): (String, Json)| {
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(x) => Value::Bool(x),
            Json::String(x) => Value::Text(x),
            Json::Number(x) if x.is_u64() && !x.is_i64() => {
                return Err(lines.fail(format!("{name:?}: {x} is above the largest integer of a column")));
            }
            Json::Number(x) => match x.as_i64() {
                Some(x) => Value::Int(x),
                None => Value::Float(x.as_f64().unwrap_or(f64::NAN)),
            },
            Json::Array(_) | Json::Object(_) => {
                return Err(lines.fail(format!("{name:?}: expected a number, a text, true, false or null")));
            }
        };
        Ok((name, value))
    };
    object.into_iter().map(value).collect()
}
