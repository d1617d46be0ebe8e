//! [`ColbertEncoder`].

mod backbone;
mod folder;
#[cfg(feature = "hub")]
mod hub;
mod projection;
mod text;
mod weights;

use std::fmt;
use std::path::Path;

use candle_core::{Device, Result as CandleResult, Tensor};
use maxsim_core::{Error, Result};

use self::backbone::Backbone;
use self::folder::{Folder, Settings};
use self::projection::Projection;
use self::text::{Role, Sequence, Text};
use crate::encoder::{Encoded, EncodedBatch, Encoder, Pieces};
use crate::fingerprint::Fingerprint;

/// Sequences that are computed together at most.
const BATCH: usize = 32;
/// Numbers in the attention scores of a batch at most (256 MiB), unless a single sequence has more.
const SCORES: usize = 64 << 20;
/// Texts that are tokenized before they are computed; sorted by length, so that batches need little padding.
const WINDOW: usize = 2048;

/// What can be chosen when a model is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColbertOptions {
    /// Tokens of a query, those that the model adds included: at most, or exactly if the model fills queries up with mask
    /// tokens. `None`: what the model says.
    pub query_length: Option<usize>,
    /// Tokens of a document at most, those that the model adds included; what a text has beyond is ignored. `None`: what
    /// the model says.
    pub document_length: Option<usize>,
    /// Threads that compute vectors. `None`: as many as there are cores, or as `RAYON_NUM_THREADS` says.
    pub threads: Option<usize>,
}

/// Text to token vectors by a ColBERT model: a BERT or ModernBERT transformer and a projection, computed in f32 on the CPU.
///
/// Reads folders that hold `model.safetensors` and `tokenizer.json` in one of these layouts:
///
/// * **PyLate**: `modules.json`, the projections it lists (`1_Dense`, …), and `config_sentence_transformers.json` with
///   prefixes, lengths, query expansion, skip list and prompt.
/// * **ColBERT** (Stanford): the projection `linear.weight` among the tensors, settings in `artifact.metadata`.
/// * **sentence-transformers** without a projection: the token outputs themselves, every token of a text up to the model's
///   length. Such models were not trained for this; they are there for want of a better one.
///
/// All vectors have unit length. A query of a model with query expansion has as many rows as the model says; rows of
/// documents leave out the skip list (usually punctuation). Tokens that the model adds have rows too, so that no document
/// is empty. Vectors agree with those of PyLate 1.6 to 1e-3 and better.
///
/// Texts are computed in batches. In which company a text was computed can show in the last bits of its vectors.
pub struct ColbertEncoder {
    name: String,
    dim: usize,
    fingerprint: u64,
    model_fingerprint: u64,
    text: Text,
    backbone: Backbone,
    projections: Vec<Projection>,
    settings: Settings,
    /// Where vectors are computed, if the number of threads was chosen.
    pool: Option<rayon::ThreadPool>,
}

impl ColbertEncoder {
    /// The model in a folder.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read; [`Error::Format`] if a file is missing, is not what its name says, or
    /// contradicts another, with the file's name; [`Error::Unsupported`] for transformers other than BERT and ModernBERT
    /// and for settings of these that are not computed here, with what would help; [`Error::Value`] for a length in
    /// `options` that has no room for text or is more than the transformer's positions.
    pub fn from_folder(folder: impl AsRef<Path>, options: &ColbertOptions) -> Result<Self> {
        let path = folder.as_ref();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self::load(path, name, options)
    }

    /// A model of the Hugging Face hub, `organisation/name` or `organisation/name@revision`; or the model in a folder, if
    /// there is one of this name.
    ///
    /// What was fetched once is read from the cache that Python's tools share (`HF_HOME`, else `~/.cache/huggingface`).
    /// With `HF_HUB_OFFLINE=1` nothing is fetched. `HF_TOKEN`, `HF_ENDPOINT` and proxy variables count.
    ///
    /// # Errors
    /// Those of [`Self::from_folder`]; [`Error::Value`] for what is neither a folder nor an id; [`Error::Io`] if the hub
    /// cannot be reached or does not have the model, which says what to do.
    #[cfg(feature = "hub")]
    pub fn open(model: &str, options: &ColbertOptions) -> Result<Self> {
        if Path::new(model).is_dir() {
            return Self::from_folder(model, options);
        }
        Self::load(&hub::fetch(model)?, model.to_owned(), options)
    }

    fn load(path: &Path, name: String, options: &ColbertOptions) -> Result<Self> {
        let mut fingerprint = Fingerprint::new(FINGERPRINT_VERSION);
        let mut folder = Folder::open(path)?;
        let tensors = weights::read(&folder.transformer, &mut fingerprint)?;
        let mut projections = Vec::new();
        if folder.stanford {
            projections.push(Projection::stanford(&folder.transformer, &tensors)?);
        }
        for at in &folder.projections {
            projections.push(Projection::open(at, &mut fingerprint)?);
        }
        let backbone = Backbone::load(&folder, tensors)?;
        for at in folder.projections.iter().chain([&folder.transformer]) {
            fingerprint.add(&folder::bytes(at, "config.json")?.unwrap_or_default());
        }

        let settings = &mut folder.settings;
        settings.query_length =
            length("query_length", options.query_length, settings.query_length, backbone.positions)?;
        settings.document_length =
            length("document_length", options.document_length, settings.document_length, backbone.positions)?;
        let text = Text::open(&folder.transformer, settings, &mut fingerprint)?;
        if text.largest_id() as usize >= backbone.vocabulary {
            let problem = format!(
                "its ids go up to {}, and the transformer has {} embeddings: not the tokenizer of this model",
                text.largest_id(),
                backbone.vocabulary
            );
            return Err(Error::format(folder::named(&folder.transformer, "tokenizer.json"), problem));
        }
        let mut dim = backbone.hidden;
        for projection in &projections {
            if projection.from != dim {
                let problem = format!("a projection of {} dimensions behind {dim}", projection.from);
                return Err(Error::format(folder.path.display().to_string(), problem));
            }
            dim = projection.to;
        }
        let mut model = fingerprint.clone();
        fingerprint.add(format!("{settings:?}").as_bytes());
        let pool = options.threads.map(pool).transpose()?;
        let settings = folder.settings;
        let any_length = folder::Settings { query_length: 0, document_length: 0, ..settings.clone() };
        model.add(format!("{any_length:?}").as_bytes());
        let (fingerprint, model_fingerprint) = (fingerprint.finish(), model.finish());
        Ok(Self { name, dim, fingerprint, model_fingerprint, text, backbone, projections, settings, pool })
    }

    /// Tokens of a query, those that the model adds included: exactly, if it fills queries up, otherwise at most.
    pub fn query_length(&self) -> usize {
        self.settings.query_length
    }

    /// Tokens of a document at most, those that the model adds included.
    pub fn document_length(&self) -> usize {
        self.settings.document_length
    }

    /// Unit vectors of the rows of `sequences`, in their order: `write(i, rows)` with `[rows, dim]` numbers each, batch by
    /// batch from the longest sequence to the shortest.
    fn compute(
        &self,
        sequences: &[Sequence],
        mut write: impl FnMut(usize, &mut dyn Iterator<Item = &[f32]>),
    ) -> Result<()> {
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].ids.len()));
        let mut rest = &order[..];
        while let Some(&longest) = rest.first() {
            let tokens = sequences[longest].ids.len();
            let fitting = SCORES / (self.backbone.heads * tokens * tokens).max(1);
            let (batch, later) = rest.split_at(fitting.clamp(1, BATCH).min(rest.len()));
            rest = later;
            let of = |&i: &usize| &sequences[i];
            let outputs = self
                .forward_on_pool(&batch.iter().map(of).collect::<Vec<_>>(), tokens)
                .map_err(|error| Error::format(self.name.as_str(), weights::plain(&error)))?;
            for (&i, outputs) in batch.iter().zip(outputs.chunks_exact(tokens * self.dim)) {
                let rows = outputs.chunks_exact(self.dim).zip(&sequences[i].kept);
                write(i, &mut rows.filter(|(_, kept)| **kept).map(|(row, _)| row));
            }
        }
        Ok(())
    }

    /// [`forward`](Self::forward) on the threads that were asked for: whatever it shares out stays within the pool.
    fn forward_on_pool(&self, sequences: &[&Sequence], tokens: usize) -> CandleResult<Vec<f32>> {
        match &self.pool {
            Some(pool) => pool.install(|| self.forward(sequences, tokens)),
            None => self.forward(sequences, tokens),
        }
    }

    /// Row-major `[sequences, tokens, dim]`, of unit length where there was a direction.
    fn forward(&self, sequences: &[&Sequence], tokens: usize) -> CandleResult<Vec<f32>> {
        let mut ids = Vec::with_capacity(sequences.len() * tokens);
        for sequence in sequences {
            ids.extend(&sequence.ids);
            // Not attended to, and without a row in the result: any id does.
            ids.resize(ids.len() + tokens - sequence.ids.len(), 0);
        }
        let ids = Tensor::from_vec(ids, (sequences.len(), tokens), &Device::Cpu)?;
        let attended: Vec<usize> = sequences.iter().map(|sequence| sequence.attended).collect();
        let x = self.backbone.forward(&ids, &attended)?;
        let x = self.projections.iter().try_fold(x, |x, projection| projection.forward(&x))?;
        let mut vectors: Vec<f32> = x.flatten_all()?.to_vec1()?;
        for row in vectors.chunks_exact_mut(self.dim) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x /= norm);
        }
        Ok(vectors)
    }
}

/// Raised whenever the same files and settings make other vectors than before.
const FINGERPRINT_VERSION: u64 = 1;

fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    if threads == 0 {
        return Err(Error::value("threads", "at least 1", "0"));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("maxsim-encode-{i}"))
        .build()
        .map_err(|error| Error::io("threads", error))
}

/// The length that was asked for, or the model's own, cut to what the transformer can do.
fn length(name: &'static str, asked: Option<usize>, own: usize, positions: usize) -> Result<usize> {
    match asked {
        Some(length) if length > positions => Err(Error::value(
            name,
            format!("at most {positions}, the transformer's positions"),
            length.to_string(),
        )),
        Some(length) => Ok(length),
        None => Ok(own.min(positions)),
    }
}

impl Encoder for ColbertEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn model_fingerprint(&self) -> u64 {
        self.model_fingerprint
    }

    fn encode_queries(&self, texts: &[&str]) -> Result<Vec<Encoded>> {
        let (mut sequences, mut encoded) = (Vec::new(), Vec::new());
        for text in texts {
            let (sequence, Pieces { tokens, spans }) = self.text.with_pieces(Role::Query, text)?;
            encoded.push(Encoded { tokens, spans, vectors: Vec::with_capacity(sequence.rows() * self.dim) });
            sequences.push(sequence);
        }
        self.compute(&sequences, |i, rows| rows.for_each(|row| encoded[i].vectors.extend_from_slice(row)))?;
        Ok(encoded)
    }

    fn encode_documents(&self, texts: &[&str], progress: &mut dyn FnMut(usize)) -> Result<EncodedBatch> {
        let mut batch = EncodedBatch { vectors: Vec::new(), offsets: vec![0], dim: self.dim };
        let mut done = 0;
        for texts in texts.chunks(WINDOW) {
            let sequences = texts
                .iter()
                .map(|text| self.text.sequence(Role::Document, text))
                .collect::<Result<Vec<_>>>()?;
            let first = batch.offsets.len() - 1;
            for sequence in &sequences {
                let last = batch.offsets.last().copied().unwrap_or(0);
                let end = u32::try_from(sequence.rows()).ok().and_then(|rows| last.checked_add(rows));
                batch.offsets.push(end.ok_or_else(|| Error::Limit {
                    argument: "texts".into(),
                    limit: format!("{} tokens", u32::MAX),
                    got: "more".into(),
                })?);
            }
            let total = batch.offsets.last().map_or(0, |&end| end as usize);
            batch.vectors.resize(total * self.dim, 0.0);
            let EncodedBatch { vectors, offsets, dim } = &mut batch;
            self.compute(&sequences, |i, rows| {
                let start = offsets[first + i] as usize * *dim;
                for (slot, row) in vectors[start..].chunks_exact_mut(*dim).zip(rows) {
                    slot.copy_from_slice(row);
                }
                done += 1;
                progress(done);
            })?;
        }
        Ok(batch)
    }

    fn document_pieces(&self, text: &str) -> Result<Pieces> {
        Ok(self.text.with_pieces(Role::Document, text)?.1)
    }
}

impl fmt::Debug for ColbertEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColbertEncoder")
            .field("name", &self.name)
            .field("dim", &self.dim)
            .field("fingerprint", &format_args!("{:016x}", self.fingerprint))
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
