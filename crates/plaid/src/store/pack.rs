//! An index in one file, for places that have no directories: a URL, a browser's storage, an attachment.
//!
//! A container of kind `PACK`: section `NAME` holds the number of files (u32) and their names (length u32, UTF-8), sections `f000`,
//! `f001`, … hold the files as they are in a directory, in that order. It is read, not written to.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use maxsim_core::{Error, Result};

use super::container::{self, Container, Remote, Tag};
use super::source::Source;
use super::storage::{self, Bytes, Guard, Sink, Storage};
use super::{MemoryStorage, corrupt, wire};
use crate::index::Index;
use crate::store::manifest::CURRENT;

pub(crate) const KIND: Tag = *b"PACK";
pub(crate) const NAMES: Tag = *b"NAME";
/// Bytes asked for at a time by [`fetch`].
const FETCH: u64 = 1 << 20;

/// Section of file number `file`.
pub(crate) fn tag(file: usize) -> Tag {
    let digit = |shift: usize| b"0123456789abcdef"[file >> shift & 15];
    [b'f', digit(8), digit(4), digit(0)]
}

/// Writes an index as one file.
///
/// # Errors
/// `ERR_IO` if the files are gone or `sink` refuses, `ERR_LIMIT` for an index of more than 4000 segments: compact it first.
pub fn pack(index: &Index, sink: &mut dyn Write) -> Result<()> {
    const MAX_FILES: usize = 4000;
    let manifest = index.manifest();
    let numbered = std::iter::once(&manifest.codec).chain(manifest.segments.iter().map(|s| &s.file));
    let names: Vec<String> = numbered.map(|file| file.name()).collect();
    if names.len() > MAX_FILES {
        let got = format!("{}", names.len() - 1);
        return Err(Error::Limit { argument: "segments".into(), limit: format!("{MAX_FILES}"), got });
    }
    let mut directory = wire::Writer::default();
    directory.u32(names.len() as u32 + 1);
    directory.text(CURRENT);
    names.iter().for_each(|name| directory.text(name));
    let (directory, manifest) = (directory.finish(), manifest.to_bytes());
    let storage = &**index.storage();
    let missing = |name: &String| Error::io(format!("{}/{name}", storage.describe()), "it is gone");
    let open = |name: &String| storage::open(storage, name)?.ok_or_else(|| missing(name));
    let files: Vec<Bytes> = names.iter().map(open).collect::<Result<_>>()?;
    let mut sections = vec![(NAMES, &directory[..]), (tag(0), &manifest[..])];
    sections.extend(files.iter().enumerate().map(|(i, file)| (tag(i + 1), (**file).as_ref())));
    container::write(sink, KIND, &sections).map_err(|error| Error::io("packing the index", error))?;
    Ok(())
}

/// Names of the files.
pub(crate) fn read_names(bytes: &[u8], what: &str) -> Result<Vec<String>> {
    let mut record = wire::Reader::new(bytes, what);
    let names = (0..record.u32()?).map(|_| Ok(record.text()?.to_owned())).collect::<Result<Vec<_>>>()?;
    record.finish()?;
    match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        Some((_, name)) => Err(corrupt(what, format!("file {name:?} is there twice"))),
        None => Ok(names),
    }
}

/// An index in one file, in memory or mapped. It can be read only.
#[derive(Clone)]
pub struct PackStorage {
    what: String,
    files: Vec<(String, Bytes)>,
}

struct Part {
    bytes: Bytes,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.range.clone()]
    }
}

impl PackStorage {
    /// Maps the file at a path; see [`new`](Self::new).
    ///
    /// # Errors
    /// As [`new`](Self::new), `ERR_IO`.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &std::path::Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = super::directory::map(path).map_err(|error| Error::io(&name, error))?;
        Self::new(bytes, &name)
    }

    /// Opens what [`pack`] wrote; `name` is for errors.
    ///
    /// # Errors
    /// `ERR_FORMAT` for another file, `ERR_VERSION` for a newer one, `ERR_CORRUPT` for a damaged one.
    pub fn new(bytes: Bytes, name: &str) -> Result<Self> {
        let file = Container::open(bytes.clone(), KIND, name)?;
        let names = read_names(file.checked(NAMES)?, name)?;
        let files = names.into_iter().enumerate().map(|(i, name)| {
            let part = Part { bytes: bytes.clone(), range: file.range(tag(i))? };
            Ok((name, Arc::new(part) as Bytes))
        });
        Ok(Self { what: name.to_owned(), files: files.collect::<Result<_>>()? })
    }
}

impl PackStorage {
    /// The files in it.
    pub(super) fn files(&self) -> &[(String, Bytes)] {
        &self.files
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "an index in one file can only be read")
}

impl Storage for PackStorage {
    fn describe(&self) -> String {
        self.what.clone()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.iter().map(|(name, _)| name.clone()).collect())
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        let file = self.files.iter().find(|(n, _)| n == name);
        file.map(|(_, bytes)| bytes.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn Sink + '_>> {
        Err(read_only())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn sync(&self) -> io::Result<()> {
        Err(read_only())
    }

    fn lock(&self) -> io::Result<Guard> {
        Err(read_only())
    }
}

/// Fetches an index in one file from wherever it is, a MiB at a time, into memory, where it can be written to as well. Every block
/// is compared with its checksum as it comes. `progress` is told bytes fetched and bytes in all; an error of its own ends it.
///
/// # Errors
/// As [`PackStorage::new`], the source's, and that of `progress`.
pub async fn fetch(
    source: impl Source,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<MemoryStorage> {
    let what = source.name().to_owned();
    let remote = Remote::open(source, KIND).await?;
    let names = read_names(&remote.read(NAMES, 0..remote.length(NAMES)?).await?, &what)?;
    let lengths = (0..names.len()).map(|i| remote.length(tag(i))).collect::<Result<Vec<_>>>()?;
    let (mut done, total) = (0, lengths.iter().sum());
    let mut files = Vec::with_capacity(names.len());
    for (i, (name, length)) in names.into_iter().zip(lengths).enumerate() {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            let start = bytes.len() as u64;
            bytes.extend(remote.read(tag(i), start..(start + FETCH).min(length)).await?);
            progress(done + bytes.len() as u64, total)?;
        }
        done += length;
        files.push((name, bytes));
    }
    Ok(MemoryStorage::with_files(files.iter().map(|(name, bytes)| (name.clone(), &bytes[..]))))
}
