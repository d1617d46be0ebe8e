//! The folder of a model: which files say what, in the layouts of PyLate, of the original ColBERT (Stanford), and of
//! sentence-transformers without a projection.

use std::path::{Path, PathBuf};

use maxsim_core::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// PyLate's defaults, for settings that a folder leaves open.
const QUERY_LENGTH: usize = 32;
const DOCUMENT_LENGTH: usize = 180;
/// Of sentence-transformers folders that set none.
const PLAIN_LENGTH: usize = 512;
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// What a folder says about a model, less its tensors.
#[derive(Debug)]
pub(super) struct Folder {
    /// The folder.
    pub(super) path: PathBuf,
    /// Where the transformer, its configuration and its tokenizer lie: `path` or a folder within.
    pub(super) transformer: PathBuf,
    /// Folders of projections in the order they are applied.
    pub(super) projections: Vec<PathBuf>,
    /// The transformer's tensors include the projection `linear.weight`, as the original ColBERT saves it.
    pub(super) stanford: bool,
    /// How text is encoded.
    pub(super) settings: Settings,
}

/// How text is encoded. Every field has a say in the vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// Token that is put behind the first token of queries; none if empty.
    pub(super) query_prefix: String,
    /// The same of documents.
    pub(super) document_prefix: String,
    /// Tokens of a query at most, and exactly with `expansion`.
    pub(super) query_length: usize,
    /// Tokens of a document at most.
    pub(super) document_length: usize,
    /// Fill queries up with mask tokens.
    pub(super) expansion: bool,
    /// Let other tokens attend to the mask tokens that queries were filled up with.
    pub(super) attend_to_expansion: bool,
    /// Tokens that documents are encoded with, but that have no row.
    pub(super) skiplist: Vec<String>,
    /// Put before every text.
    pub(super) prompt: String,
    /// Make text lower case before it is tokenized. Tokenizers usually do that themselves.
    pub(super) lower_case: bool,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct ModuleEntry {
    path: String,
    #[serde(rename = "type")]
    class: String,
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PylateConfig {
    model_type: Option<String>,
    query_prefix: Option<String>,
    document_prefix: Option<String>,
    query_length: Option<usize>,
    document_length: Option<usize>,
    do_query_expansion: Option<bool>,
    attend_to_expansion_tokens: Option<bool>,
    skiplist_words: Option<Vec<String>>,
    prompts: Option<std::collections::HashMap<String, String>>,
    default_prompt_name: Option<String>,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    do_lower_case: Option<bool>,
}

/// `artifact.metadata`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct StanfordConfig {
    query_token_id: Option<String>,
    doc_token_id: Option<String>,
    query_maxlen: Option<usize>,
    doc_maxlen: Option<usize>,
    attend_to_mask_tokens: Option<bool>,
}

#[derive(Deserialize)]
struct Architectures {
    architectures: Option<Vec<String>>,
}

impl Folder {
    /// Reads the small files of a folder.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path.display().to_string(), e))?;
        if !metadata.is_dir() {
            let problem = "a model is a folder, and this is a file";
            return Err(Error::format(path.display().to_string(), problem));
        }
        let modules: Option<Vec<ModuleEntry>> = json(path, "modules.json")?;
        let listed = modules.is_some();
        let (mut transformer, mut projections) = (None, Vec::new());
        for module in modules.unwrap_or_default() {
            let at = inside(path, &module.path)?;
            // The class moved between packages; its own name stayed.
            match module.class.rsplit('.').next().unwrap_or_default() {
                "Transformer" => transformer = transformer.or(Some(at)),
                "Dense" => projections.push(at),
                // Of whole texts, not of tokens; tokens are normalised anyway.
                "Pooling" | "Normalize" => {}
                _ => {
                    return Err(Error::Unsupported {
                        what: format!("{}: the module {} in modules.json", path.display(), module.class),
                        hint: "Transformer and Dense are what a ColBERT model consists of".into(),
                    });
                }
            }
        }
        if listed && transformer.is_none() {
            return Err(Error::format(named(path, "modules.json"), "no module of the type Transformer"));
        }
        let transformer = transformer.unwrap_or_else(|| path.to_owned());
        let architectures: Architectures = required(&transformer, "config.json")?;
        let stanford = projections.is_empty()
            && architectures.architectures.is_some_and(|a| a.iter().any(|a| a == "HF_ColBERT"));

        let pylate: PylateConfig = json(path, "config_sentence_transformers.json")?.unwrap_or_default();
        let sentence: SentenceConfig = json(&transformer, "sentence_bert_config.json")?.unwrap_or_default();
        let colbert = pylate.model_type.as_deref() == Some("ColBERT") || pylate.query_prefix.is_some();
        let settings = if stanford {
            let metadata: StanfordConfig = json(path, "artifact.metadata")?.unwrap_or_default();
            Settings::stanford(metadata, &sentence)
        } else if colbert || !projections.is_empty() {
            Settings::pylate(pylate, &sentence)
                .map_err(|problem| Error::format(named(path, "config_sentence_transformers.json"), problem))?
        } else {
            Settings::plain(&sentence)
        };
        Ok(Self { path: path.to_owned(), transformer, projections, stanford, settings })
    }
}

impl Settings {
    fn pylate(config: PylateConfig, sentence: &SentenceConfig) -> Result<Self, String> {
        let prompts = config.prompts.unwrap_or_default();
        let prompt = match config.default_prompt_name {
            None => String::new(),
            Some(name) => prompts
                .get(&name)
                .cloned()
                .ok_or_else(|| format!("default_prompt_name is {name:?}, which prompts does not have"))?,
        };
        let expansion = config.do_query_expansion.unwrap_or(true);
        Ok(Self {
            query_prefix: config.query_prefix.unwrap_or_else(|| "[Q] ".into()),
            document_prefix: config.document_prefix.unwrap_or_else(|| "[D] ".into()),
            query_length: config.query_length.unwrap_or(QUERY_LENGTH),
            document_length: config.document_length.unwrap_or(DOCUMENT_LENGTH),
            expansion,
            attend_to_expansion: expansion && config.attend_to_expansion_tokens.unwrap_or(false),
            skiplist: config.skiplist_words.unwrap_or_else(punctuation),
            prompt,
            lower_case: sentence.do_lower_case.unwrap_or(false),
        })
    }

    fn stanford(config: StanfordConfig, sentence: &SentenceConfig) -> Self {
        Self {
            query_prefix: config.query_token_id.unwrap_or_else(|| "[unused0]".into()),
            document_prefix: config.doc_token_id.unwrap_or_else(|| "[unused1]".into()),
            query_length: config.query_maxlen.unwrap_or(QUERY_LENGTH),
            document_length: config.doc_maxlen.unwrap_or(DOCUMENT_LENGTH),
            expansion: true,
            attend_to_expansion: config.attend_to_mask_tokens.unwrap_or(false),
            skiplist: punctuation(),
            prompt: String::new(),
            lower_case: sentence.do_lower_case.unwrap_or(false),
        }
    }

    fn plain(sentence: &SentenceConfig) -> Self {
        let length = sentence.max_seq_length.unwrap_or(PLAIN_LENGTH);
        Self {
            query_prefix: String::new(),
            document_prefix: String::new(),
            query_length: length,
            document_length: length,
            expansion: false,
            attend_to_expansion: false,
            skiplist: Vec::new(),
            prompt: String::new(),
            lower_case: sentence.do_lower_case.unwrap_or(false),
        }
    }
}

fn punctuation() -> Vec<String> {
    PUNCTUATION.chars().map(String::from).collect()
}

/// A folder within `path`; a model must not point elsewhere.
fn inside(path: &Path, relative: &str) -> Result<PathBuf> {
    let plain = |c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir);
    if !Path::new(relative).components().all(plain) {
        let problem = format!("the path {relative:?} leads out of the folder");
        return Err(Error::format(named(path, "modules.json"), problem));
    }
    Ok(path.join(relative))
}

/// The name of a file in messages.
pub(super) fn named(folder: &Path, file: &str) -> String {
    folder.join(file).display().to_string()
}

/// The bytes of a file, if it is there.
pub(super) fn bytes(folder: &Path, file: &str) -> Result<Option<Vec<u8>>> {
    match std::fs::read(folder.join(file)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(named(folder, file), error)),
    }
}

/// The error of a file that has to be there.
pub(super) fn missing(folder: &Path, file: &str) -> Error {
    Error::format(folder.display().to_string(), format!("no {file}, which the folder of a model has"))
}

/// A JSON file, if it is there.
pub(super) fn json<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<Option<T>> {
    let parse = |bytes: Vec<u8>| {
        serde_json::from_slice(&bytes).map_err(|error| Error::format(named(folder, file), error.to_string()))
    };
    bytes(folder, file)?.map(parse).transpose()
}

/// A JSON file that has to be there.
pub(super) fn required<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<T> {
    json(folder, file)?.ok_or_else(|| missing(folder, file))
}
