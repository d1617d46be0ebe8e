//! Queries and documents from files or text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{ArgGroup, Args};
use maxsim::{DType, DataBuf, Error, Precision, ResidualLayout, Tensor};
use maxsim_encode::{Encoded, Encoder, Pieces};
use maxsim_formats::{Array, ArrayData, ElementType, SafeTensors, read_npy};

use crate::exit::Usage;
use crate::model::ModelArgs;
use crate::operand::{Layout, Operand, OwnedDocuments, OwnedResidual, OwnedScales, ResidualDocuments};
use crate::output;
use crate::setup::{self, Global, Storage};

/// Where queries and documents come from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Input options", group = ArgGroup::new("any queries").args(["queries", "query", "text query"]).required(true).multiple(true),
    group = ArgGroup::new("any documents").args(["documents", "text"]).required(true))]
pub(crate) struct InputArgs {
    /// Query as text
    #[arg(id = "text query", value_name = "QUERY", conflicts_with = "queries")]
    text_query: Option<String>,
    /// Query vectors: .npy or .safetensors, [Lq, d] or [Nq, Lq, d], or [T, d] with --query-offsets
    #[arg(long, value_name = "FILE[:TENSOR]")]
    queries: Option<String>,
    /// Document vectors: [Ld, d], [Nd, Ld, d] or [Nq, K, Ld, d], or [T, d] with --offsets; with --dtype residual a
    /// .safetensors file of these tensors: codes [Nd, L], residuals [Nd, L, ⌈d·nbits/8⌉] and doc_lengths [Nd], or codes
    /// [T], residuals [T, ⌈d·nbits/8⌉] and cu_seqlens_d [Nd + 1]; centroids [C, d], bucket_weights [2^nbits], and
    /// inv_norms in the shape of codes if there are any
    #[arg(long, value_name = "FILE[:TENSOR]")]
    documents: Option<String>,
    /// Query as text; may be repeated
    #[arg(long, value_name = "TEXT", conflicts_with = "queries")]
    query: Vec<String>,
    /// Documents as text: a file with one per line, or a directory of .txt and .md files
    #[arg(long, value_name = "PATH")]
    text: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,

    /// Where queries start in packed vectors: Nq + 1 integers
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with_all = ["query", "text query", "query_lengths"])]
    query_offsets: Option<String>,
    /// Tokens per query of padded vectors: Nq integers
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with_all = ["query", "text query"])]
    query_lengths: Option<String>,
    /// Query tokens that count: one boolean or integer per token slot
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with_all = ["query", "text query"])]
    query_mask: Option<String>,
    /// Scales of fp8 or int8 queries: one, or one per token slot
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with_all = ["query", "text query"])]
    query_scales: Option<String>,

    /// Where documents start in packed vectors: Nd + 1 integers
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with_all = ["text", "lengths"])]
    offsets: Option<String>,
    /// Tokens per document of padded vectors: one integer per document
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with = "text")]
    lengths: Option<String>,
    /// Document tokens that count: one boolean or integer per token slot
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with = "text")]
    mask: Option<String>,
    /// Scales of fp8 or int8 documents: one, or one per token slot
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with = "text")]
    scales: Option<String>,

    /// Convert documents to this type before scoring; fp8 and int8 (a scale per token) the queries too. residual says
    /// that --documents holds PLAID's codes and residuals
    #[arg(long, value_parser = setup::storage())]
    dtype: Option<Storage>,
    /// Bits per dimension of residuals
    #[arg(long, value_name = "N", value_parser = setup::nbits())]
    nbits: Option<u32>,
    /// Bit order of residuals: plaid as ColBERTv2, PyLate, fast-plaid and next-plaid write them, lik as
    /// late-interaction-kernels reads them
    #[arg(long, value_parser = setup::layout())]
    layout: Option<ResidualLayout>,
    /// Cut text documents after this many tokens [default: what the model says; the built-in encoder has no limit]
    #[arg(long, value_name = "N", value_parser = setup::positive(), conflicts_with = "documents")]
    max_tokens: Option<usize>,
}

/// How scores are computed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ScoringArgs {
    /// Divide every token vector by its length (the default for residual documents, which are not of unit length)
    #[arg(long, overrides_with = "no_normalize")]
    normalize: bool,
    /// Take token vectors as they are
    #[arg(long, overrides_with = "normalize")]
    no_normalize: bool,
    /// How exact products are: fast may round f32 to 16 bit, int8 is integer arithmetic on quantised operands
    #[arg(long, default_value = "default", value_name = "PRECISION", value_parser = setup::precision())]
    pub(crate) precision: Precision,
}

impl ScoringArgs {
    /// What was asked for; otherwise `default` for vectors from files. Text queries are as long as their tokens are
    /// important, and text documents have unit length, so that text is taken as it is. Decoded residuals have any length.
    pub(crate) fn normalize(self, default: bool, input: &Input) -> bool {
        match (self.normalize, self.no_normalize) {
            (true, _) => true,
            (_, true) => false,
            _ => match input.documents.operand {
                OwnedDocuments::Residual(_) => true,
                OwnedDocuments::Tokens(_) => default && input.queries.texts.is_none(),
            },
        }
    }
}

/// One side of the input.
pub(crate) struct Side<T> {
    /// The vectors.
    pub(crate) operand: T,
    /// What was encoded, if it was text.
    pub(crate) texts: Option<Vec<Text>>,
}

/// A text and where it came from.
pub(crate) struct Text {
    /// The text.
    pub(crate) text: String,
    /// `file:line` or the path within the directory; empty for queries.
    pub(crate) source: String,
}

/// Queries and documents.
pub(crate) struct Input {
    /// Queries.
    pub(crate) queries: Side<Operand>,
    /// Documents.
    pub(crate) documents: Side<OwnedDocuments>,
    /// What the rows of queries stand for, if queries are text.
    query_pieces: Option<Vec<Pieces>>,
    /// The encoder of documents, if documents are text.
    encoder: Option<Arc<dyn Encoder>>,
}

impl Input {
    /// Texts of the tokens of query `i`, if queries are text.
    pub(crate) fn query_tokens(&self, i: usize) -> Option<Vec<String>> {
        Some(token_texts(&self.queries.texts.as_ref()?[i].text, &self.query_pieces.as_ref()?[i]))
    }

    /// Texts of the tokens of document `j`, if documents are text.
    pub(crate) fn document_tokens(&self, j: usize) -> Option<Vec<String>> {
        let text = &self.documents.texts.as_ref()?[j].text;
        Some(token_texts(text, &self.encoder.as_ref()?.document_pieces(text).ok()?))
    }
}

/// Tokens as people want to see them: a piece of a word stands within its word, `sub[mers]ible`.
pub(crate) fn token_texts(text: &str, pieces: &Pieces) -> Vec<String> {
    let piece = |(token, &(start, end)): (&String, &(u32, u32))| {
        let (start, end) = (start as usize, end as usize);
        let inside = |c: char| c.is_alphanumeric();
        if start == end || !text[start..end].chars().all(inside) {
            return token.clone();
        }
        let before = &text[..start];
        let after = &text[end..];
        let head = &before[before.trim_end_matches(inside).len()..];
        let tail = &after[..after.len() - after.trim_start_matches(inside).len()];
        match (head, &text[start..end], tail) {
            ("", whole, "") => whole.to_owned(),
            (head, piece, tail) => format!("{head}[{piece}]{tail}"),
        }
    };
    pieces.tokens.iter().zip(&pieces.spans).map(piece).collect()
}

impl InputArgs {
    /// Reads and encodes.
    pub(crate) fn read(&self, global: &Global) -> anyhow::Result<Input> {
        let residual = self.residual()?;
        let encoders = match (&self.queries, &self.text) {
            (Some(_), None) if self.model.is_given() => {
                return Err(Usage::new("--model encodes text, and neither queries nor documents are").into());
            }
            (Some(_), None) => None,
            _ => Some(self.model.load(global, self.max_tokens)?),
        };
        let (mut queries, query_pieces) = match (&self.queries, &encoders) {
            (None, Some(encoders)) => {
                let texts: Vec<&str> =
                    self.text_query.iter().chain(&self.query).map(String::as_str).collect();
                let (queries, pieces) = encode_queries(&texts, &*encoders.queries)?;
                (queries, Some(pieces))
            }
            (file, _) => {
                let files = Files {
                    vectors: file.as_deref().unwrap_or_default(),
                    offsets: self.query_offsets.as_deref(),
                    lengths: self.query_lengths.as_deref(),
                    mask: self.query_mask.as_deref(),
                    scales: self.query_scales.as_deref(),
                    options: [
                        "--queries",
                        "--query-offsets",
                        "--query-lengths",
                        "--query-mask",
                        "--query-scales",
                    ],
                };
                (files.read()?, None)
            }
        };
        if let Some((path, nbits, layout)) = residual {
            let operand =
                OwnedDocuments::Residual(read_residual(path, nbits, layout).context("--documents")?);
            let documents = Side { operand, texts: None };
            return Ok(Input { queries, documents, query_pieces, encoder: None });
        }
        let mut encoder = None;
        let mut documents = match (&self.documents, &self.text, encoders) {
            (_, Some(path), Some(encoders)) => {
                let encoder = encoder.insert(encoders.documents);
                encode_documents(read_texts(path).context("--text")?, &**encoder)?
            }
            (file, ..) => Files {
                vectors: file.as_deref().unwrap_or_default(),
                offsets: self.offsets.as_deref(),
                lengths: self.lengths.as_deref(),
                mask: self.mask.as_deref(),
                scales: self.scales.as_deref(),
                options: ["--documents", "--offsets", "--lengths", "--mask", "--scales"],
            }
            .read()?,
        };
        if let Some(Storage::Vectors(dtype)) = self.dtype {
            documents.operand.convert(dtype, "documents").context("--dtype")?;
            if dtype.is_quantized() {
                queries.operand.convert(dtype, "queries").context("--dtype")?;
            }
        }
        let documents = Side { operand: OwnedDocuments::Tokens(documents.operand), texts: documents.texts };
        Ok(Input { queries, documents, query_pieces, encoder })
    }

    /// File, bits and bit order under `--dtype residual`.
    fn residual(&self) -> anyhow::Result<Option<(&Path, u32, ResidualLayout)>> {
        if self.dtype != Some(Storage::Residual) {
            return match (self.nbits, self.layout) {
                (None, None) => Ok(None),
                _ => Err(Usage::new("--nbits and --layout are about --dtype residual").into()),
            };
        }
        let other = [
            (self.offsets.is_some(), "--offsets"),
            (self.lengths.is_some(), "--lengths"),
            (self.mask.is_some(), "--mask"),
            (self.scales.is_some(), "--scales"),
            (self.text.is_some(), "--text"),
        ];
        if let Some((_, option)) = other.iter().find(|(given, _)| *given) {
            let problem =
                format!("--dtype residual takes everything about documents from --documents, not {option}");
            return Err(Usage::new(problem).into());
        }
        let Some(nbits) = self.nbits else {
            return Err(Usage::new("--dtype residual needs --nbits: 1, 2, 4 or 8").into());
        };
        let Some(layout) = self.layout else {
            return Err(Usage::new(
                "--dtype residual needs --layout: residuals do not say in which order their bits were packed, and read in \
                 the wrong order they give vectors that look plausible and are wrong. It is plaid for what ColBERTv2, \
                 PyLate, fast-plaid and next-plaid write, lik for what late-interaction-kernels reads",
            )
            .into());
        };
        let path = Path::new(self.documents.as_deref().unwrap_or_default());
        Ok(Some((path, nbits, layout)))
    }
}

/// Reads the tensors of residual documents.
fn read_residual(path: &Path, nbits: u32, layout: ResidualLayout) -> anyhow::Result<OwnedResidual> {
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
        let problem = "expected a file named .safetensors, without a tensor: residual documents are several";
        return Err(Error::format(path.display().to_string(), problem).into());
    }
    let file = SafeTensors::open(path)?;
    let malformed = |problem: String| Error::format(path.display().to_string(), problem);
    let tensor = |name: &str| {
        if !file.contains(name) {
            return Err(malformed(format!("no tensor {name:?}, which residual documents have")));
        }
        file.tensor(name)
    };
    let codes = tensor("codes")?;
    let residuals = tensor("residuals")?;
    let centroids = tensor("centroids")?;
    let (centroid_shape, centroids) = (centroids.shape().to_vec(), centroids.into_vectors("centroids")?);
    let dim = centroid_shape.last().copied().unwrap_or(0);
    let width = dim.saturating_mul(nbits as usize).div_ceil(8);
    // The library sees bytes without a shape; here it is known, and a width that is wrong can be told from a missing row.
    let expected = [codes.shape(), &[width]].concat();
    if residuals.shape() != expected {
        let expected =
            format!("{expected:?}: ⌈d·nbits/8⌉ = {width} bytes a token, d = {dim}, nbits = {nbits}");
        return Err(Error::shape("residuals", expected, format!("{:?}", residuals.shape())).into());
    }
    let inv_norms = match file.contains("inv_norms").then(|| file.tensor("inv_norms")).transpose()? {
        Some(array) if array.shape() != codes.shape() => {
            let (expected, got) = (format!("{:?} as codes", codes.shape()), format!("{:?}", array.shape()));
            return Err(Error::shape("inv_norms", expected, got).into());
        }
        array => array.map(|array| array.into_vectors("inv_norms")).transpose()?,
    };
    let documents = match (file.contains("doc_lengths"), file.contains("cu_seqlens_d"), codes.shape()) {
        (true, false, &[count, len]) => ResidualDocuments::Padded {
            shape: [count, len],
            doc_lengths: file.tensor("doc_lengths")?.to_u32("doc_lengths")?,
        },
        (false, true, &[_]) => {
            ResidualDocuments::Packed { offsets: file.tensor("cu_seqlens_d")?.to_u32("cu_seqlens_d")? }
        }
        (true, false, shape) => {
            let expected = "rank 2 [Nd, L] with doc_lengths";
            return Err(Error::shape("codes", expected, format!("{shape:?}")).into());
        }
        (false, true, shape) => {
            return Err(Error::shape("codes", "rank 1 [T] with cu_seqlens_d", format!("{shape:?}")).into());
        }
        _ => return Err(malformed("expected one of the tensors doc_lengths and cu_seqlens_d".into()).into()),
    };
    let operand = OwnedResidual {
        centroids: Tensor::new(centroids, centroid_shape)?,
        bucket_weights: tensor("bucket_weights")?.to_f32("bucket_weights")?,
        nbits,
        layout,
        codes: codes.to_u32("codes")?,
        residuals: match residuals.into_parts() {
            (_, ArrayData::U8(bytes)) => bytes,
            (_, other) => {
                return Err(Error::dtype("residuals", "u8", other.element_type().name()).into());
            }
        },
        inv_norms,
        documents,
    };
    // Checked here, where it is known which option is at fault.
    operand.residual()?;
    Ok(operand)
}

/// Packed query vectors, and what their rows stand for.
pub(crate) fn encode_queries(
    texts: &[&str],
    encoder: &dyn Encoder,
) -> anyhow::Result<(Side<Operand>, Vec<Pieces>)> {
    let (mut vectors, mut offsets, mut pieces) = (Vec::new(), vec![0u32], Vec::new());
    for (text, encoded) in texts.iter().zip(encoder.encode_queries(texts)?) {
        let Encoded { tokens, spans, vectors: rows } = encoded;
        if tokens.is_empty() {
            // Every document would score 0, and the order of the result would mean nothing.
            let expected = "text with a word that the encoder can spell";
            return Err(Error::value("query", expected, format!("{text:?}")).into());
        }
        vectors.extend(rows);
        offsets.push((vectors.len() / encoder.dim()) as u32);
        pieces.push(Pieces { tokens, spans });
    }
    let texts = texts.iter().map(|&text| Text { text: text.to_owned(), source: String::new() }).collect();
    Ok((Side { operand: packed(vectors, offsets, encoder.dim()), texts: Some(texts) }, pieces))
}

fn encode_documents(texts: Vec<Text>, encoder: &dyn Encoder) -> anyhow::Result<Side<Operand>> {
    let bar = output::progress(texts.len(), "encoding");
    let words: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    let batch = encoder.encode_documents(&words, &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    Ok(Side { operand: packed(batch.vectors, batch.offsets, batch.dim), texts: Some(texts) })
}

fn packed(vectors: Vec<f32>, offsets: Vec<u32>, dim: usize) -> Operand {
    Operand { data: DataBuf::F32(vectors), dim, layout: Layout::Packed { offsets }, mask: None, scales: None }
}

/// Documents of a text file (one per line, empty lines left out) or of a directory (one per file, in order of path).
pub(crate) fn read_texts(path: &Path) -> anyhow::Result<Vec<Text>> {
    let name = path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(&name, error))?;
    if !metadata.is_dir() {
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let text = read_text(path)?;
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        return Ok(lines
            .map(|(number, line)| Text { text: line.to_owned(), source: format!("{file}:{number}") })
            .collect());
    }
    let mut files = Vec::new();
    collect(path, &mut files)?;
    files.sort();
    if files.is_empty() {
        return Err(Error::format(name, "the directory holds no .txt or .md file").into());
    }
    let read = |file: PathBuf| {
        let source = file.strip_prefix(path).unwrap_or(&file).display().to_string();
        Ok(Text { text: read_text(&file)?, source })
    };
    files.into_iter().map(read).collect()
}

/// Adds the text files below `directory`. Links to directories are not followed: they can form circles.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> maxsim::Result<()> {
    let fail = |error: std::io::Error| Error::io(directory.display().to_string(), error);
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        if entry.file_type().map_err(fail)?.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "txt" || e == "md") && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> maxsim::Result<String> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| Error::io(&name, error))?;
    String::from_utf8(bytes).map_err(|error| {
        Error::format(name, format!("not UTF-8 text: byte {} is not", error.utf8_error().valid_up_to()))
    })
}

/// The files of one side, and the options that named them.
struct Files<'a> {
    vectors: &'a str,
    offsets: Option<&'a str>,
    lengths: Option<&'a str>,
    mask: Option<&'a str>,
    scales: Option<&'a str>,
    options: [&'static str; 5],
}

impl Files<'_> {
    fn read(&self) -> anyhow::Result<Side<Operand>> {
        let [vectors, offsets, lengths, mask, scales] = self.options;
        let array = read_array(self.vectors).context(vectors)?;
        let shape = array.shape().to_vec();
        let dim = shape.last().copied().unwrap_or(0);
        // Unsigned bytes are numbers only together with scales; then they are fp8, for which .npy has no name.
        let data = if array.element_type() == ElementType::U8 && self.scales.is_some() {
            array.into_quantized("vectors", DType::E4M3)
        } else {
            array.into_vectors("vectors")
        }
        .context(vectors)?;
        let layout = match self.offsets {
            None => Layout::Padded { shape, lengths: optional(self.lengths, lengths, integers)? },
            Some(_) if shape.len() != 2 => {
                let error =
                    Error::shape("data", "rank 2 [T, d] for packed vectors", format!("rank {}", shape.len()));
                return Err(error).context(vectors);
            }
            Some(file) => Layout::Packed { offsets: integers(file).context(offsets)? },
        };
        let operand = Operand {
            data,
            dim,
            layout,
            mask: optional(self.mask, mask, |file| Ok(read_array(file)?.to_mask("mask")?))?,
            scales: optional(self.scales, scales, |file| {
                let values = read_array(file)?.to_f32("scales")?;
                Ok(match values[..] {
                    [one] => OwnedScales::PerTensor(one),
                    _ => OwnedScales::PerToken(values),
                })
            })?,
        };
        // Checked here, where it is known which option is at fault.
        operand.tokens().context(vectors)?;
        Ok(Side { operand, texts: None })
    }
}

/// Reads query vectors alone, for commands whose documents are elsewhere.
pub(crate) fn read_queries(
    vectors: &str,
    offsets: Option<&str>,
    lengths: Option<&str>,
) -> anyhow::Result<Operand> {
    let options = ["--queries", "--query-offsets", "--query-lengths", "", ""];
    Ok(Files { vectors, offsets, lengths, mask: None, scales: None, options }.read()?.operand)
}

fn optional<T>(
    file: Option<&str>,
    option: &'static str,
    read: impl FnOnce(&str) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    file.map(read).transpose().context(option)
}

fn integers(file: &str) -> anyhow::Result<Vec<u32>> {
    Ok(read_array(file)?.to_u32("values")?)
}

/// Reads `FILE` or `FILE:TENSOR`.
fn read_array(argument: &str) -> anyhow::Result<Array> {
    let (path, tensor) = split(argument);
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match (extension.as_deref(), tensor) {
        (Some("npy"), None) => Ok(read_npy(path)?),
        (Some("npy"), Some(tensor)) => {
            let problem = format!("a .npy file holds one array without a name, not {tensor:?}");
            Err(Error::format(path.display().to_string(), problem).into())
        }
        (Some("safetensors"), tensor) => read_tensor(path, tensor),
        _ => {
            let problem = "expected a file named .npy or .safetensors";
            Err(Error::format(path.display().to_string(), problem).into())
        }
    }
}

/// File and tensor. What exists as a whole is a file, and so is what has a path behind the colon (`C:\data.npy`).
fn split(argument: &str) -> (&Path, Option<&str>) {
    match argument.rsplit_once(':') {
        Some((file, tensor)) if !tensor.contains(['/', '\\']) || file.ends_with(".safetensors") => {
            if Path::new(argument).exists() {
                return (Path::new(argument), None);
            }
            (Path::new(file), Some(tensor))
        }
        _ => (Path::new(argument), None),
    }
}

fn read_tensor(path: &Path, tensor: Option<&str>) -> anyhow::Result<Array> {
    let file = SafeTensors::open(path)?;
    let names: Vec<&str> = file.names().collect();
    let listed = || match names.len() {
        0 => "none".into(),
        n @ 1..=12 => names[..n].join(", "),
        n => format!("{} and {} more", names[..12].join(", "), n - 12),
    };
    let name = match (tensor, &names[..]) {
        (Some(name), _) if names.contains(&name) => name,
        (None, [only]) => only,
        (Some(name), _) => {
            let problem = format!("no tensor {name:?}; it holds {}", listed());
            return Err(Error::format(path.display().to_string(), problem).into());
        }
        (None, _) => {
            let problem = format!("say which tensor, as FILE:TENSOR; it holds {}", listed());
            return Err(Error::format(path.display().to_string(), problem).into());
        }
    };
    Ok(file.tensor(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_named_behind_the_file() {
        assert_eq!(split("a.npy"), (Path::new("a.npy"), None));
        assert_eq!(split("dir/a.safetensors:q"), (Path::new("dir/a.safetensors"), Some("q")));
        assert_eq!(split("a.safetensors:case/Q"), (Path::new("a.safetensors"), Some("case/Q")));
        assert_eq!(split(r"C:\data\a.npy"), (Path::new(r"C:\data\a.npy"), None));
    }

    #[test]
    fn pieces_are_shown_within_their_word() {
        let text = "a submersible, warship";
        let spans = vec![(0, 0), (0, 1), (2, 5), (5, 9), (9, 13), (13, 14), (15, 22)];
        let token = |&(start, end): &(u32, u32)| match &text[start as usize..end as usize] {
            "" => "[CLS]".to_owned(),
            token => token.to_owned(),
        };
        let pieces = Pieces { tokens: spans.iter().map(token).collect(), spans };
        assert_eq!(
            token_texts(text, &pieces),
            ["[CLS]", "a", "[sub]mersible", "sub[mers]ible", "submers[ible]", ",", "warship"]
        );
    }
}
