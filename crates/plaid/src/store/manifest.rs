//! The manifest: the one file that is replaced, and that says what the index is.

use maxsim_core::plaid::Bitmap;
use maxsim_core::{Error, MAX_TOKENS, Result};

use super::container::{self, Container, Fingerprint, Tag};
use super::storage::{self, Bytes, Storage};
use super::{corrupt, wire};
use crate::encoder::EncoderRecord;
use crate::ids::IdKind;
use crate::metadata::Schema;

/// Name of the manifest.
pub(crate) const CURRENT: &str = "manifest.mxi";
/// Name of the manifest of a build that is not finished.
pub(crate) const BUILDING: &str = "building.mxi";
/// Ending of all files of an index, and of those that are being written.
const ENDING: &str = ".mxi";
const TEMPORARY: &str = ".tmp";

/// Commits and files that an index can have; nobody gets there by counting.
const MAX_COUNT: u64 = u64::MAX / 2;

const KIND: Tag = *b"MANI";
const HEAD: Tag = *b"HEAD";
const SEGMENTS: Tag = *b"SEGS";
const DELETED: Tag = *b"DEAD";
const SCHEMA: Tag = *b"SCHM";
const BUILD: Tag = *b"BLDG";
const ENCODER: Tag = *b"ENCO";

/// What a file with a number in its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Codec,
    Segment,
}

/// A file that the manifest relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileRef {
    pub(crate) role: Role,
    /// Given once in the life of an index.
    pub(crate) number: u64,
    pub(crate) fingerprint: Fingerprint,
}

impl FileRef {
    pub(crate) fn name(&self) -> String {
        file_name(self.role, self.number)
    }
}

/// Name of a numbered file.
pub(crate) fn file_name(role: Role, number: u64) -> String {
    match role {
        Role::Codec => format!("codec-{number:08x}{ENDING}"),
        Role::Segment => format!("segment-{number:08x}{ENDING}"),
    }
}

/// Whether a file of this name was made by an index and may be removed by it once no manifest mentions it.
pub(crate) fn is_ours(name: &str) -> bool {
    let temporary = name.strip_suffix(TEMPORARY);
    let numbered = |name: &str, start: &str| {
        let digits = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(ENDING));
        digits.is_some_and(|d| d.len() >= 8 && d.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    temporary == Some(CURRENT)
        || temporary == Some(BUILDING)
        || numbered(name, "codec-")
        || numbered(name, "segment-")
}

/// A segment, and which of its documents are deleted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SegmentRef {
    pub(crate) file: FileRef,
    pub(crate) documents: usize,
    pub(crate) tokens: usize,
    /// `None` if none is.
    pub(crate) deleted: Option<Bitmap>,
}

impl SegmentRef {
    /// Documents that are not deleted.
    pub(crate) fn live(&self) -> usize {
        self.documents - self.deleted.as_ref().map_or(0, Bitmap::count)
    }
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BuildState {
    /// Documents of the source, counted in the first pass.
    pub(crate) documents: u64,
    /// Their tokens.
    pub(crate) tokens: u64,
    /// Documents whose segments are finished.
    pub(crate) done: u64,
    /// Checksum of the options: a build is resumed with the same ones only.
    pub(crate) options: u32,
}

/// What an index is at one time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    /// Counts commits.
    pub(crate) generation: u64,
    pub(crate) ids: IdKind,
    /// Id that the next document gets which brings none.
    pub(crate) next_id: u64,
    /// Number that the next file gets.
    pub(crate) next_file: u64,
    pub(crate) codec: FileRef,
    pub(crate) segments: Vec<SegmentRef>,
    pub(crate) schema: Schema,
    /// What made vectors of the documents' texts, if that is known.
    pub(crate) encoder: Option<EncoderRecord>,
    pub(crate) build: Option<BuildState>,
}

impl Manifest {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut head = wire::Writer::default();
        head.u64(self.generation);
        head.u64(self.next_id);
        head.u64(self.next_file);
        head.u32(match self.ids {
            IdKind::Number => 0,
            IdKind::Text => 1,
        });
        head.u32(self.segments.len() as u32);
        write_file(&mut head, &self.codec);
        let mut segments = wire::Writer::default();
        let mut deleted = wire::Writer::default();
        for segment in &self.segments {
            write_file(&mut segments, &segment.file);
            segments.size(segment.documents);
            segments.size(segment.tokens);
            segments.u32(u32::from(segment.deleted.is_some()));
            if let Some(bitmap) = &segment.deleted {
                bitmap.words().iter().for_each(|&word| deleted.u32(word));
            }
        }
        let mut schema = wire::Writer::default();
        self.schema.write(&mut schema);
        let build = self.build.as_ref().map(|build| {
            let mut record = wire::Writer::default();
            record.u64(build.documents);
            record.u64(build.tokens);
            record.u64(build.done);
            record.u32(build.options);
            record.finish()
        });
        let encoder = self.encoder.as_ref().map(|encoder| {
            let mut record = wire::Writer::default();
            encoder.write(&mut record);
            record.finish()
        });
        let (head, segments) = (head.finish(), segments.finish());
        let (deleted, schema) = (deleted.finish(), schema.finish());
        let mut sections =
            vec![(HEAD, &head[..]), (SEGMENTS, &segments), (DELETED, &deleted), (SCHEMA, &schema)];
        sections.extend(encoder.as_ref().map(|encoder| (ENCODER, &encoder[..])));
        sections.extend(build.as_ref().map(|build| (BUILD, &build[..])));
        let mut bytes = Vec::new();
        container::write(&mut bytes, KIND, &sections).expect("memory takes everything");
        bytes
    }

    /// Reads a manifest, checking everything that can be checked without the files it mentions.
    ///
    /// # Errors
    /// As [`Container::open`].
    pub(crate) fn from_bytes(bytes: Bytes, what: &str) -> Result<Self> {
        let file = Container::open(bytes, KIND, what)?;
        file.verify()?;
        let mut head = wire::Reader::new(file.bytes(HEAD)?, what);
        let (generation, next_id, next_file) = (head.u64()?, head.u64()?, head.u64()?);
        if generation.max(next_file) > MAX_COUNT {
            return Err(head.fail(format!("generation {generation}, file number {next_file}")));
        }
        let ids = match head.u32()? {
            0 => IdKind::Number,
            1 => IdKind::Text,
            other => return Err(head.fail(format!("{other} is no kind of ids"))),
        };
        let count = head.u32()?;
        let codec = read_file(&mut head, Role::Codec)?;
        head.finish()?;
        let mut records = wire::Reader::new(file.bytes(SEGMENTS)?, what);
        let mut deleted = wire::Reader::new(file.bytes(DELETED)?, what);
        let mut segments: Vec<SegmentRef> = Vec::new();
        for _ in 0..count {
            let file = read_file(&mut records, Role::Segment)?;
            let (documents, tokens) = (records.size()?, records.size()?);
            if documents >= MAX_TOKENS || tokens >= MAX_TOKENS {
                return Err(records.fail(format!("a segment of {documents} documents and {tokens} tokens")));
            }
            let bitmap = match records.u32()? {
                0 => None,
                _ => {
                    let words = deleted.bytes(documents.div_ceil(32).saturating_mul(4))?;
                    let words: Vec<u32> = bytemuck::pod_collect_to_vec(words);
                    Some(Bitmap::from_words(words, documents).expect("as many words as there are documents"))
                }
            };
            if file.number >= next_file || segments.iter().any(|s| s.file.number == file.number) {
                return Err(
                    records.fail(format!("file number {} is there twice or was never given", file.number))
                );
            }
            segments.push(SegmentRef { file, documents, tokens, deleted: bitmap });
        }
        records.finish()?;
        deleted.finish()?;
        if codec.number >= next_file {
            return Err(corrupt(what, format!("file number {} was never given", codec.number)));
        }
        let mut schema_record = wire::Reader::new(file.bytes(SCHEMA)?, what);
        let schema = Schema::read(&mut schema_record)?;
        schema_record.finish()?;
        let encoder = match file.has(ENCODER) {
            false => None,
            true => {
                let mut record = wire::Reader::new(file.bytes(ENCODER)?, what);
                let encoder = EncoderRecord::read(&mut record)?;
                record.finish()?;
                Some(encoder)
            }
        };
        let build = match file.has(BUILD) {
            false => None,
            true => {
                let mut record = wire::Reader::new(file.bytes(BUILD)?, what);
                let build = BuildState {
                    documents: record.u64()?,
                    tokens: record.u64()?,
                    done: record.u64()?,
                    options: record.u32()?,
                };
                record.finish()?;
                Some(build)
            }
        };
        Ok(Self { generation, ids, next_id, next_file, codec, segments, schema, encoder, build })
    }

    /// The manifest of that name; `None` if there is none.
    pub(crate) fn read(storage: &dyn Storage, name: &str) -> Result<Option<Self>> {
        let what = format!("{}/{name}", storage.describe());
        storage::open(storage, name)?.map(|bytes| Self::from_bytes(bytes, &what)).transpose()
    }

    /// Puts the manifest in place of the one of that name, in one step. It is durable when this returns.
    ///
    /// # Errors
    /// [`Unpublished::Clean`] if the old one is certainly still there; [`Unpublished::Unknown`] if either may be.
    pub(crate) fn publish(&self, storage: &dyn Storage, name: &str) -> std::result::Result<(), Unpublished> {
        let temporary = format!("{name}{TEMPORARY}");
        let clean = |error| Unpublished::Clean(storage::failed(storage, &temporary, &error));
        let bytes = self.to_bytes();
        storage::write(storage, &temporary, |sink| sink.write_all(&bytes)).map_err(clean)?;
        // The files it mentions have to have durable names before it can mention them.
        storage.sync().map_err(clean)?;
        storage.rename(&temporary, name).map_err(clean)?;
        storage.sync().map_err(|error| Unpublished::Unknown(storage::failed(storage, name, &error)))
    }
}

/// Why a manifest is not known to be in place.
#[derive(Debug)]
pub(crate) enum Unpublished {
    Clean(Error),
    Unknown(Error),
}

impl From<Unpublished> for Error {
    fn from(unpublished: Unpublished) -> Self {
        match unpublished {
            Unpublished::Clean(error) | Unpublished::Unknown(error) => error,
        }
    }
}

fn write_file(record: &mut wire::Writer, file: &FileRef) {
    record.u64(file.number);
    record.u64(file.fingerprint.length);
    record.u32(file.fingerprint.checksum);
}

fn read_file(record: &mut wire::Reader<'_>, role: Role) -> Result<FileRef> {
    let number = record.u64()?;
    let fingerprint = Fingerprint { length: record.u64()?, checksum: record.u32()? };
    Ok(FileRef { role, number, fingerprint })
}

/// Writes a numbered file; its contents are durable when this returns, its name after the next [`Storage::sync`].
pub(crate) fn write_numbered(
    storage: &dyn Storage,
    role: Role,
    number: u64,
    kind: Tag,
    sections: &[(Tag, &[u8])],
) -> Result<FileRef> {
    let name = file_name(role, number);
    let written = storage::write(storage, &name, |sink| container::write(sink, kind, sections));
    let fingerprint = written.map_err(|error| storage::failed(storage, &name, &error))?;
    Ok(FileRef { role, number, fingerprint })
}

/// Opens a numbered file.
///
/// # Errors
/// `ERR_CORRUPT` if it is missing or another one than the manifest speaks of, and as [`Container::open`].
pub(crate) fn open_numbered(storage: &dyn Storage, file: &FileRef, kind: Tag) -> Result<Container> {
    let name = file.name();
    let what = format!("{}/{name}", storage.describe());
    let bytes = storage::open(storage, &name)?;
    let bytes = bytes.ok_or_else(|| corrupt(&what, "the manifest speaks of it, and it is not there"))?;
    let container = Container::open(bytes, kind, &what)?;
    if container.header().fingerprint() != file.fingerprint {
        return Err(corrupt(&what, "it is not the file that the manifest speaks of"));
    }
    Ok(container)
}

/// One more than the highest number in names of files; 1 if there is none.
pub(crate) fn free_number(names: &[String]) -> u64 {
    let number = |name: &String| {
        let digits = name.strip_suffix(ENDING)?.rsplit_once('-')?.1;
        if is_ours(name) { u64::from_str_radix(digits, 16).ok()?.checked_add(1) } else { None }
    };
    names.iter().filter_map(number).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryStorage, shared};
    use super::*;
    use crate::metadata::Value;

    fn manifest() -> Manifest {
        let file = |role, number| FileRef {
            role,
            number,
            fingerprint: Fingerprint { length: 64 * number, checksum: number as u32 },
        };
        let mut schema = Schema::default();
        schema.extend(&[vec![("year".to_owned(), Value::Int(1))]]).unwrap();
        Manifest {
            generation: 5,
            ids: IdKind::Text,
            next_id: 9,
            next_file: 8,
            codec: file(Role::Codec, 1),
            segments: vec![
                SegmentRef { file: file(Role::Segment, 2), documents: 3, tokens: 10, deleted: None },
                SegmentRef {
                    file: file(Role::Segment, 7),
                    documents: 70,
                    tokens: 1000,
                    deleted: Bitmap::of(70, [0, 69]),
                },
            ],
            schema,
            encoder: Some(EncoderRecord {
                name: "tiny".into(),
                location: "models/tiny".into(),
                fingerprint: u64::MAX - 1,
            }),
            build: Some(BuildState { documents: 100, tokens: 2000, done: 73, options: 3 }),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let memory = MemoryStorage::new();
        assert!(Manifest::read(&memory, CURRENT).unwrap().is_none());
        manifest().publish(&memory, CURRENT).unwrap();
        assert_eq!(Manifest::read(&memory, CURRENT).unwrap(), Some(manifest()));
        assert_eq!(memory.names().unwrap(), [CURRENT]);
        assert_eq!(manifest().segments[1].live(), 68);
    }

    #[test]
    fn manifests_that_contradict_themselves_are_refused() {
        let refused = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            let error = Manifest::from_bytes(shared(&manifest.to_bytes()), "manifest").unwrap_err();
            assert_eq!(error.code().as_str(), "ERR_CORRUPT");
        };
        refused(|m| m.next_file = 7);
        refused(|m| m.segments[1].file.number = 2);
        refused(|m| m.codec.number = 8);
        refused(|m| m.segments[1].documents = 1000);
        refused(|m| m.segments[1].documents = 10);
    }

    #[test]
    fn only_files_of_an_index_are_its_own() {
        for ours in ["codec-00000001.mxi", "segment-123456789a.mxi", "manifest.mxi.tmp", "building.mxi.tmp"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in
            ["manifest.mxi", "building.mxi", "lock", "segment-1.mxi", "segment-zzzzzzzz.mxi", "notes.txt"]
        {
            assert!(!is_ours(other), "{other}");
        }
    }
}
