//! Documents from files, a few at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use clap::Args;
use maxsim::plaid::{Batch, DocumentId, DocumentSource, IdKind, Row, Value};
use maxsim::{Error, Result, Tokens};
use maxsim_formats::{NpyFile, read_npy};

/// Documents for an index.
#[derive(Debug, Args)]
pub(super) struct DocumentArgs {
    /// Token vectors: .npy, [Nd, L, d], or [T, d] with --offsets. Read a few documents at a time
    #[arg(long, value_name = "FILE")]
    documents: PathBuf,
    /// Offsets of packed documents [Nd + 1]: .npy
    #[arg(long, value_name = "FILE", conflicts_with = "lengths")]
    offsets: Option<PathBuf>,
    /// Lengths of padded documents [Nd]: .npy
    #[arg(long, value_name = "FILE")]
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

/// The files behind [`DocumentArgs`].
pub(super) struct Documents {
    vectors: NpyFile,
    rows: Rows,
    count: usize,
    ids: Option<(PathBuf, IdKind)>,
    metadata: Option<PathBuf>,
}

/// Which rows are whose.
enum Rows {
    Packed(Vec<u32>),
    Padded { len: usize, lengths: Option<Vec<u32>> },
}

impl DocumentArgs {
    /// Opens the files; ids are to be of `kind`.
    pub(super) fn open(&self, kind: IdKind) -> Result<Documents> {
        let vectors = NpyFile::open(&self.documents)?;
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
        if self.ids.is_none() && kind == IdKind::Text {
            return Err(Error::value("ids", "a file of texts, one per document", "none"));
        }
        let ids = self.ids.clone().map(|path| (path, kind));
        Ok(Documents { vectors, rows, count, ids, metadata: self.metadata.clone() })
    }

    /// Tells the files from others: names, lengths, times.
    pub(super) fn fingerprint(&self) -> Result<String> {
        let files = [
            Some(&self.documents),
            self.offsets.as_ref(),
            self.lengths.as_ref(),
            self.ids.as_ref(),
            self.metadata.as_ref(),
        ];
        let mut text = String::new();
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

    fn dim(&self) -> usize {
        self.vectors.shape().last().copied().unwrap_or(0)
    }

    /// Slots of tokens of a document.
    fn extent(&self, document: usize) -> usize {
        match &self.rows {
            Rows::Packed(offsets) => (offsets[document + 1] - offsets[document]) as usize,
            Rows::Padded { len, .. } => *len,
        }
    }

    /// Documents from `first` that make a batch.
    fn batch(&self, first: usize) -> usize {
        let (mut end, mut tokens) = (first, 0);
        while end < self.count && end - first < BATCH_DOCUMENTS {
            tokens += self.extent(end);
            if tokens > BATCH_TOKENS && end > first {
                break;
            }
            end += 1;
        }
        end
    }

    fn read(&self, first: usize, end: usize, lines: &mut Sides) -> Result<Batch> {
        let dim = self.dim();
        let count = end - first;
        let documents = match &self.rows {
            Rows::Packed(offsets) => {
                let offsets = &offsets[first..=end];
                let array = self.vectors.rows(offsets[0] as usize..offsets[count] as usize)?;
                let offsets: Vec<u32> = offsets.iter().map(|o| o - offsets[0]).collect();
                Tokens::packed(array.into_vectors("documents")?.as_ref(), dim, &offsets[..])?.to_buf()
            }
            Rows::Padded { len, lengths } => {
                let data = self.vectors.rows(first..end)?.into_vectors("documents")?;
                let tokens = Tokens::padded(data.as_ref(), &[count, *len, dim])?;
                match lengths {
                    Some(lengths) => tokens.with_lengths(&lengths[first..end])?.to_buf(),
                    None => tokens.to_buf(),
                }
            }
        };
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
        Ok(Batch { documents, ids: ids.transpose()?, metadata: rows.transpose()?.unwrap_or_default() })
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
