//! Reading.

use std::path::{Path, PathBuf};

use maxsim_core::plaid::Segment;
use maxsim_core::{DataBuf, Error, Result};
use maxsim_formats::{Array, ArrayData, ElementType, NpyFile, read_npy};
use serde_json::Value;

use super::names;
use crate::codec::{Centroids, CodecParts, Encoded, IndexCodec};

/// Longest JSON file that is read (doclens of 25,000 documents take some 100 KB).
const MAX_JSON: u64 = 1 << 28;

/// A directory written by fast-plaid or next-plaid. Opening reads tables and lengths; codes and residuals are read by
/// [`segments`](Self::segments), a bounded number at a time.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    codec: IndexCodec,
    /// Tokens of every document, per chunk.
    lengths: Vec<Vec<u32>>,
    tokens: usize,
    metadata: Value,
}

/// What [`Directory::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What does not hold, in words; empty if all is well.
    pub problems: Vec<String>,
    /// Documents read.
    pub documents: usize,
    /// Tokens read.
    pub tokens: usize,
}

impl Directory {
    /// Whether a path looks like such a directory.
    pub fn is_one(path: &Path) -> bool {
        path.join(names::METADATA).is_file() && path.join(names::CENTROIDS).is_file()
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// `ERR_IO`; `ERR_FORMAT` (or an error about a `.npy` file) where a file is missing, damaged or contradicts another;
    /// `ERR_UNSUPPORTED` for binary and ternary indexes and `.pt` files.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        if !path.join(names::CENTROIDS).exists() && path.join("centroids.pt").exists() {
            return Err(Error::Unsupported {
                what: format!("{}: an index of .pt files (Python pickles)", path.display()),
                hint: "load it with PyLate or ColBERT and save its tensors as .npy".into(),
            });
        }
        let metadata = json(&path.join(names::METADATA))?;
        for flag in ["binary", "ternary"] {
            if metadata.get(flag).and_then(Value::as_bool) == Some(true) {
                return Err(Error::Unsupported {
                    what: format!("{}: a {flag} index", path.display()),
                    hint: "rebuild it with residuals of 1, 2, 4 or 8 bits".into(),
                });
            }
        }
        let directory = path.join(names::METADATA);
        let nbits = match number(&metadata, "nbits") {
            Some(nbits) => nbits,
            None => number(&json(&path.join(names::PLAN))?, "nbits")
                .ok_or_else(|| bad(&directory, "nbits is missing"))?,
        };
        let codec = codec(&path, nbits)?;
        let chunks =
            number(&metadata, "num_chunks").ok_or_else(|| bad(&directory, "num_chunks is missing"))?;
        let mut lengths = Vec::new();
        let (mut documents, mut tokens) = (0, 0usize);
        for chunk in 0..chunks {
            let chunk = doclens(&path.join(names::doclens(chunk as usize)))?;
            documents += chunk.len();
            tokens += chunk.iter().map(|&n| n as usize).sum::<usize>();
            lengths.push(chunk);
        }
        for (key, found) in [("num_documents", documents), ("num_embeddings", tokens)] {
            // next-plaid leaves num_documents out, or 0, in files of old versions.
            match number(&metadata, key) {
                Some(claimed) if claimed != found as u64 && claimed != 0 => {
                    let problem = format!("{key} is {claimed}, but the doclens files say {found}");
                    return Err(bad(&directory, problem));
                }
                _ => {}
            }
        }
        Ok(Self { path, codec, lengths, tokens, metadata })
    }

    /// Centroids and buckets.
    pub fn codec(&self) -> &IndexCodec {
        &self.codec
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.lengths.iter().map(Vec::len).sum()
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// What `metadata.json` says, unknown keys included.
    pub fn metadata(&self) -> &Value {
        &self.metadata
    }

    /// The program that wrote it, as far as that shows.
    pub fn written_by(&self) -> &'static str {
        match self.metadata.get("next_plaid_compatible") {
            Some(_) => "next-plaid",
            None => "fast-plaid",
        }
    }

    /// The documents in order, in segments of whole chunks with about `tokens` tokens each: what is held in memory is one
    /// segment, twice while it is made.
    pub fn segments(&self, tokens: usize) -> impl Iterator<Item = Result<Segment>> + '_ {
        let mut groups: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
        let (mut row, mut in_group) = (0, 0usize);
        for (chunk, lengths) in self.lengths.iter().enumerate() {
            let here = lengths.iter().map(|&n| n as usize).sum::<usize>();
            match groups.last_mut() {
                Some((_, group)) if in_group + here <= tokens => {
                    group.end = chunk + 1;
                    in_group += here;
                }
                _ => {
                    groups.push((row, chunk..chunk + 1));
                    in_group = here;
                }
            }
            row += here;
        }
        groups.into_iter().map(|(row, chunks)| self.segment(row, chunks))
    }

    /// The segment of `chunks`, whose first token is row `first` of merged files.
    fn segment(&self, first: usize, chunks: std::ops::Range<usize>) -> Result<Segment> {
        let width = self.codec.residual_bytes();
        let mut offsets = vec![0u32];
        let mut encoded = Encoded::default();
        let mut merged = None;
        let mut row = first;
        for chunk in chunks {
            let rows = self.lengths[chunk].iter().map(|&n| n as usize).sum::<usize>();
            let (codes, residuals) = if self.path.join(names::chunk(chunk, "codes")).exists() {
                let file = |what| NpyFile::open(self.path.join(names::chunk(chunk, what)));
                let (codes, residuals) = (file("codes")?, file("residuals")?);
                if codes.shape() != [rows] {
                    let problem = format!("shape {:?}, but doclens say {rows} tokens", codes.shape());
                    return Err(bad(&self.path.join(names::chunk(chunk, "codes")), problem));
                }
                (self.codes(&codes, 0..rows)?, self.residuals(&residuals, 0..rows, width)?)
            } else {
                if merged.is_none() {
                    let file = |what| NpyFile::open(self.path.join(names::merged(what)));
                    merged = Some((file("codes")?, file("residuals")?));
                }
                let (codes, residuals) = merged.as_ref().expect("opened above");
                // Rows behind the last document are padding.
                (self.codes(codes, row..row + rows)?, self.residuals(residuals, row..row + rows, width)?)
            };
            for &length in &self.lengths[chunk] {
                let last = u64::from(*offsets.last().expect("it starts with 0"));
                let next = u32::try_from(last + u64::from(length)).map_err(|_| Error::Limit {
                    argument: "tokens".into(),
                    limit: "2³² tokens per segment".into(),
                    got: (last + u64::from(length)).to_string(),
                })?;
                offsets.push(next);
            }
            encoded.codes.extend(codes);
            encoded.residuals.extend(residuals);
            row += rows;
        }
        self.check_codes(&encoded.codes, first)?;
        encoded.inv_norms = self.codec.inverse_norms(&encoded.codes, &encoded.residuals);
        self.codec.segment(offsets, encoded)
    }

    fn check_codes(&self, codes: &[u32], first: usize) -> Result<()> {
        match codes.iter().position(|&code| code as usize >= self.codec.count()) {
            Some(at) => Err(Error::index(
                "codes",
                first + at,
                format!("below {} centroids", self.codec.count()),
                codes[at].to_string(),
            )),
            None => Ok(()),
        }
    }

    fn codes(&self, file: &NpyFile, rows: std::ops::Range<usize>) -> Result<Vec<u32>> {
        file.rows(rows)?.to_u32("codes")
    }

    fn residuals(&self, file: &NpyFile, rows: std::ops::Range<usize>, width: usize) -> Result<Vec<u8>> {
        if file.shape().len() != 2 || file.shape()[1] != width || file.element_type() != ElementType::U8 {
            return Err(Error::shape(
                "residuals",
                format!("bytes [tokens, d·nbits/8 = {width}]"),
                format!("{} {:?}", file.element_type(), file.shape()),
            ));
        }
        match file.rows(rows)?.into_parts().1 {
            ArrayData::U8(bytes) => Ok(bytes),
            _ => unreachable!("the element type was compared"),
        }
    }

    /// Reads everything and compares the inverted lists with the codes.
    ///
    /// # Errors
    /// Those of reading; what can be read and is wrong is in the verdict.
    pub fn verify(&self) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(); self.codec.count()];
        for segment in self.segments(1 << 24) {
            let segment = segment?;
            for (c, list) in lists.iter_mut().enumerate() {
                list.extend(segment.list(c).map(|document| verdict.documents as u32 + document));
            }
            verdict.documents += segment.documents();
            verdict.tokens += segment.tokens();
        }
        if !self.path.join(names::IVF).exists() {
            verdict.problems.push(format!("{} is missing; other programs need it", names::IVF));
            return Ok(verdict);
        }
        let lengths = read_npy(self.path.join(names::IVF_LENGTHS))?.to_u32("ivf_lengths")?;
        let entries = read_npy(self.path.join(names::IVF))?.to_u32("ivf")?;
        let mut rest = &entries[..];
        for (c, list) in lists.iter().enumerate() {
            let length = lengths.get(c).copied().unwrap_or(0) as usize;
            let Some((mine, others)) = rest.split_at_checked(length) else {
                verdict.problems.push(format!("{} ends within the list of centroid {c}", names::IVF));
                return Ok(verdict);
            };
            rest = others;
            if mine != list {
                verdict.problems.push(format!("the list of centroid {c} is not what the codes say"));
            }
        }
        if !rest.is_empty() || lengths.iter().skip(lists.len()).any(|&length| length != 0) {
            verdict.problems.push(format!("{} goes on behind the last centroid", names::IVF));
        }
        Ok(verdict)
    }
}

fn bad(path: &Path, problem: impl Into<String>) -> Error {
    Error::format(path.display().to_string(), problem)
}

fn json(path: &Path) -> Result<Value> {
    let fail = |error: std::io::Error| Error::io(path.display().to_string(), error);
    let file = std::fs::File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.len() > MAX_JSON {
        return Err(bad(path, format!("a JSON file of more than {MAX_JSON} bytes")));
    }
    serde_json::from_reader(std::io::BufReader::new(file)).map_err(|error| bad(path, error.to_string()))
}

fn number(object: &Value, key: &str) -> Option<u64> {
    object.get(key).and_then(Value::as_u64)
}

fn doclens(path: &Path) -> Result<Vec<u32>> {
    let value = json(path)?;
    let list = value.as_array().ok_or_else(|| bad(path, "not a list of lengths"))?;
    let length = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    list.iter().map(|value| length(value).ok_or_else(|| bad(path, format!("{value} is no length")))).collect()
}

/// Centroids and buckets of a directory.
fn codec(path: &Path, nbits: u64) -> Result<IndexCodec> {
    let read = |name: &str| read_npy(path.join(name));
    let centroids = read(names::CENTROIDS)?;
    let &[_, dim] = centroids.shape() else {
        let got = format!("{:?}", centroids.shape());
        return Err(Error::shape("centroids", "rank 2 [K, d]", got));
    };
    let centroids = match centroids.into_vectors("centroids")? {
        values @ (DataBuf::F16(_) | DataBuf::F32(_)) => Centroids::from(values),
        other => return Err(Error::dtype("centroids", "f32, f16 or f64", other.dtype().name())),
    };
    let optional = |name: &str| match path.join(name).exists() {
        true => read(name).map(Some),
        false => Ok(None),
    };
    let avg_residual =
        match optional(names::AVG_RESIDUAL)?.map(|array| array.to_f32("avg_residual")).transpose()? {
            // ColBERT keeps one mean for all dimensions.
            Some(values) if values.len() == 1 => vec![values[0]; dim],
            Some(values) => values,
            None => vec![0.0; dim],
        };
    let first = |array: Array| array.to_f32("cluster_threshold").map(|values| values.first().copied());
    let threshold = optional(names::THRESHOLD)?.map(first).transpose()?.flatten().unwrap_or(0.0);
    IndexCodec::new(CodecParts {
        centroids,
        dim,
        nbits: u32::try_from(nbits).unwrap_or(u32::MAX),
        bucket_cutoffs: read(names::CUTOFFS)?.to_f32("bucket_cutoffs")?,
        bucket_weights: read(names::WEIGHTS)?.to_f32("bucket_weights")?,
        avg_residual,
        cluster_threshold: threshold,
    })
}
