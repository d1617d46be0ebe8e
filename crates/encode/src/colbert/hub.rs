//! Models of the Hugging Face hub, in the cache that Python's tools share.

use std::path::{Component, Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use maxsim_core::{Error, Result};

use super::folder::Folder;
use super::weights;

/// What is read of a model, in its folder or in those of its modules.
const FILES: [&str; 9] = [
    "artifact.metadata",
    "config.json",
    "config_sentence_transformers.json",
    weights::FILE,
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Where models come from.
struct Hub {
    cache: Cache,
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
}

/// The folder of the model `organisation/name` or `organisation/name@revision`, fetched if it is not in the cache.
pub(super) fn fetch(model: &str) -> Result<PathBuf> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let hub = Hub {
        cache: variable("HF_HUB_CACHE").map_or_else(Cache::from_env, |path| Cache::new(path.into())),
        endpoint: variable("HF_ENDPOINT"),
        token: variable("HF_TOKEN"),
        offline: variable("HF_HUB_OFFLINE")
            .is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no" | "off")),
    };
    hub.fetch(model)
}

impl Hub {
    fn fetch(&self, model: &str) -> Result<PathBuf> {
        let repo = repo(model).ok_or_else(|| {
            let expected = "a folder that exists, or the id of a model on the hub: organisation/name or organisation/name@revision";
            Error::value("model", expected, format!("{model:?}"))
        })?;
        let cached = self.cache.repo(repo.clone());
        let snapshot = cached.get("config.json").or_else(|| cached.get("modules.json"));
        if let Some(folder) = snapshot.as_deref().and_then(Path::parent)
            && complete(folder)
        {
            return Ok(folder.to_owned());
        }
        let fail = |problem: String| {
            let advice = "Without a network, fetch it elsewhere (hf download), and give the folder, or bring the cache";
            Error::io(
                format!("model {model}"),
                format!("not in the cache {}, and {problem}. {advice}", self.cache.path().display()),
            )
        };
        if self.offline {
            return Err(fail("HF_HUB_OFFLINE forbids to fetch it".into()));
        }
        self.download(repo, model).map_err(|error| fail(format!("it cannot be fetched: {error}")))?
    }

    /// Fetches the files that are read; those that are in the cache are not fetched again.
    fn download(&self, repo: Repo, model: &str) -> Result<Result<PathBuf>, ApiError> {
        let mut builder = ApiBuilder::from_cache(self.cache.clone()).with_retries(3);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if let Some(token) = &self.token {
            builder = builder.with_token(Some(token.clone()));
        }
        let api = builder.build()?.repo(repo);
        let mut folders = Vec::new();
        for file in
            api.info()?.siblings.into_iter().map(|sibling| sibling.rfilename).filter(|file| wanted(file))
        {
            let mut path = api.get(&file)?;
            for _ in Path::new(&file).components() {
                path.pop();
            }
            folders.push(path);
        }
        folders.dedup();
        Ok(match &folders[..] {
            [folder] => Ok(folder.clone()),
            [] => Err(Error::format(format!("model {model}"), "it has none of the files of a ColBERT model")),
            _ => Err(Error::io(format!("model {model}"), "it was changed while it was fetched; try again")),
        })
    }
}

/// `organisation/name` or `name`, with `@revision` or without.
fn repo(model: &str) -> Option<Repo> {
    let (id, revision) = model.split_once('@').unwrap_or((model, "main"));
    let part = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty()
            && part.len() <= 96
            && part.chars().all(known)
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
    };
    let good = id.split('/').count() <= 2 && id.split('/').all(part) && revision.split('/').all(part);
    good.then(|| Repo::with_revision(id.into(), RepoType::Model, revision.into()))
}

/// Whether a file of a model is read: one of its folder, or of a module's (`1_Dense`).
fn wanted(file: &str) -> bool {
    let path = Path::new(file);
    let names: Vec<&str> = path
        .components()
        .filter_map(|part| if let Component::Normal(name) = part { name.to_str() } else { None })
        .collect();
    let module =
        |folder: &str| folder.split_once('_').is_some_and(|(number, _)| number.parse::<u8>().is_ok());
    path.components().count() == names.len()
        && match names[..] {
            [name] => FILES.contains(&name),
            [folder, name] => module(folder) && FILES.contains(&name),
            _ => false,
        }
}

/// Whether a folder of the cache has all that is read. Other tools fetch only what they read themselves: without its list of
/// modules a model would seem to have no projection.
fn complete(folder: &Path) -> bool {
    let Ok(found) = Folder::open(folder) else { return false };
    let has = |folder: &Path, files: &[&str]| files.iter().all(|file| folder.join(file).exists());
    let listed = found.stanford || has(folder, &["modules.json", "config_sentence_transformers.json"]);
    listed
        && has(&found.transformer, &["tokenizer.json", weights::FILE])
        && found.projections.iter().all(|projection| has(projection, &["config.json", weights::FILE]))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use tempfile::TempDir;

    use super::*;
    use crate::{ColbertEncoder, ColbertOptions, Encoder};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn tiny() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/bert")
    }

    fn hub(cache: &TempDir, endpoint: &str, offline: bool) -> Hub {
        Hub {
            cache: Cache::new(cache.path().to_owned()),
            endpoint: Some(endpoint.into()),
            token: Some("hf_secret".into()),
            offline,
        }
    }

    /// A hub with one model, for as many requests as come; gives its address and what was asked for.
    fn serve() -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = seen.clone();
                // Clients keep connections for later.
                std::thread::spawn(move || answer(stream, &seen));
            }
        });
        (address, log)
    }

    fn answer(mut stream: TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let (mut first, mut range, mut authorized) = (String::new(), 0, false);
            reader.read_line(&mut first).ok().filter(|&n| n > 0)?;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let line = line.trim().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                authorized |= line == "authorization: bearer hf_secret";
                if let Some(bytes) = line.strip_prefix("range: bytes=") {
                    range = bytes.split('-').next()?.parse().ok()?;
                }
            }
            let path = first.split(' ').nth(1)?.to_owned();
            seen.lock().unwrap().push(path.clone());
            let listed = [
                "modules.json",
                "config.json",
                "config_sentence_transformers.json",
                "sentence_bert_config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "model.safetensors",
                "1_Dense/config.json",
                "1_Dense/model.safetensors",
                "README.md",
                "onnx/model.onnx",
                "../escape/config.json",
            ];
            let (status, body) = if !authorized {
                ("401 Unauthorized", Vec::new())
            } else if path == "/api/models/org/tiny/revision/main" {
                let siblings: Vec<_> = listed.iter().map(|f| serde_json::json!({"rfilename": f})).collect();
                ("200 OK", serde_json::json!({"siblings": siblings, "sha": COMMIT}).to_string().into_bytes())
            } else if let Some(file) = path.strip_prefix("/org/tiny/resolve/main/") {
                ("206 Partial Content", fs::read(tiny().join(file)).ok()?)
            } else {
                ("404 Not Found", Vec::new())
            };
            let rest = &body[range.min(body.len())..];
            let etag: String =
                path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {range}-{}/{}\r\nETag: \"{etag}\"\r\n\
                 X-Repo-Commit: {COMMIT}\r\n\r\n",
                rest.len(),
                body.len().saturating_sub(1),
                body.len()
            );
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(rest).ok()?;
        }
    }

    #[test]
    fn models_are_fetched_once() {
        let (address, log) = serve();
        let cache = tempfile::tempdir().unwrap();
        let folder = hub(&cache, &address, false).fetch("org/tiny").unwrap();
        assert_eq!(folder, cache.path().join("models--org--tiny/snapshots").join(COMMIT));
        let options = ColbertOptions::default();
        let fetched = ColbertEncoder::from_folder(&folder, &options).unwrap();
        assert_eq!(
            fetched.fingerprint(),
            ColbertEncoder::from_folder(tiny(), &options).unwrap().fingerprint()
        );
        let requests = log.lock().unwrap().clone();
        assert!(
            requests
                .iter()
                .all(|path| !path.contains("README") && !path.contains("onnx") && !path.contains("escape"))
        );
        // From the cache, with and without a network.
        for offline in [false, true] {
            assert_eq!(hub(&cache, &address, offline).fetch("org/tiny").unwrap(), folder);
            assert_eq!(hub(&cache, &address, offline).fetch("org/tiny@main").unwrap(), folder);
        }
        assert_eq!(log.lock().unwrap().len(), requests.len(), "nothing is asked for again");
        // Whoever fetched without the list of modules gets what is missing, and nothing else.
        fs::remove_file(folder.join("modules.json")).unwrap();
        assert!(matches!(hub(&cache, &address, true).fetch("org/tiny"), Err(Error::Io { .. })));
        hub(&cache, &address, false).fetch("org/tiny").unwrap();
        let later = log.lock().unwrap()[requests.len()..].to_vec();
        assert!(later[1..].iter().all(|path| path.ends_with("/modules.json")), "{later:?}");
    }

    #[test]
    fn what_cannot_be_fetched_says_what_to_do() {
        let cache = tempfile::tempdir().unwrap();
        let says = |endpoint: &str, offline: bool, model: &str, text: &str| {
            let error = hub(&cache, endpoint, offline).fetch(model).unwrap_err();
            let message = error.to_string();
            assert!(
                matches!(error, Error::Io { .. }) && message.contains(model) && message.contains(text),
                "{message}"
            );
            assert!(message.contains("give the folder") && !message.contains("hf_secret"), "{message}");
        };
        let (address, _) = serve();
        says(&address, false, "org/other", "404");
        says(&address, true, "org/tiny", "HF_HUB_OFFLINE");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        says(&format!("http://{closed}"), false, "org/tiny", "refused");
    }

    #[test]
    fn ids_are_told_from_paths() {
        for good in ["org/name", "bert-base-uncased", "org/name.v2_1@main", "org/name@refs/pr/3"] {
            assert!(repo(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/",
            "./model",
            "../model",
            "a/b/c",
            "org/",
            "org/na me",
            "org/name@",
            "a/..",
            "C:\\model",
            "a@b@c",
        ] {
            assert!(repo(bad).is_none(), "{bad}");
        }
        let cache = tempfile::tempdir().unwrap();
        let error = hub(&cache, "http://127.0.0.1:1", false).fetch("./model").unwrap_err();
        assert!(matches!(error, Error::Value { .. }) && error.argument() == Some("model"), "{error}");
    }
}
