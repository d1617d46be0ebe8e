//! Writing.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use maxsim_core::plaid::{Bitmap, Segment};
use maxsim_core::{Error, Result};
use maxsim_formats::{Array, ElementType, npy, write_npy};
use serde_json::json;

use super::names;
use crate::codec::IndexCodec;

/// Documents of a chunk, as many as fast-plaid puts into one.
const CHUNK: usize = 25_000;

/// Writes a directory that fast-plaid (from 1.4 on) and next-plaid (from 1.6 on) load: the `live` documents of `segments`
/// (`None`: all), numbered by their position. Returns how many there are.
///
/// The directory appears whole or not at all: it is written beside its place, synchronised and renamed.
///
/// # Errors
/// `ERR_VALUE` if `path` exists and is not an empty directory, or for dimensions of which `d·nbits` is no multiple of 8;
/// `ERR_SHAPE` where bitmap or segments do not fit; `ERR_IO`.
pub fn write(
    path: impl AsRef<Path>,
    codec: &IndexCodec,
    segments: &[&Segment],
    live: Option<&Bitmap>,
) -> Result<usize> {
    let path = path.as_ref();
    let total: usize = segments.iter().map(|segment| segment.documents()).sum();
    if let Some(live) = live
        && live.len() != total
    {
        let got = format!("{} bits", live.len());
        return Err(Error::shape("live", format!("a bit for each of {total} documents"), got));
    }
    if segments.iter().any(|segment| !segment.fits(&codec.as_codec())) {
        return Err(Error::shape("segments", "segments made with the codec", "another codec's"));
    }
    if !codec.dim().is_multiple_of(8) {
        let got = format!("d = {}", codec.dim());
        return Err(Error::value("codec", "a dimension that is a multiple of 8, as these formats want", got));
    }
    let occupied = fs::read_dir(path).map_or(path.exists(), |mut entries| entries.next().is_some());
    if occupied {
        return Err(Error::value("path", "a directory that does not exist yet", path.display().to_string()));
    }
    let staging = Staging::beside(path)?;
    let documents = Writer { directory: &staging.path, codec, segments, live }.run()?;
    staging.finish(path)?;
    Ok(documents)
}

/// A directory beside its final place; removed unless it gets there.
struct Staging {
    path: PathBuf,
    done: bool,
}

impl Staging {
    fn beside(path: &Path) -> Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::value("path", "a directory's name", path.display().to_string()))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.partial", std::process::id()));
        let staging = path.with_file_name(hidden);
        fs::create_dir_all(&staging).map_err(|error| io(&staging, error))?;
        Ok(Self { path: staging, done: false })
    }

    fn finish(mut self, path: &Path) -> Result<()> {
        sync(&self.path)?;
        // An empty directory in the place is replaced.
        fs::rename(&self.path, path).map_err(|error| io(path, error))?;
        self.done = true;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
            _ => sync(Path::new(".")),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            // What is left over is hidden and says `.partial`; there is nobody to tell.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn io(path: &Path, error: std::io::Error) -> Error {
    Error::io(path.display().to_string(), error)
}

/// Makes a file's or directory's contents durable.
fn sync(path: &Path) -> Result<()> {
    // Windows cannot open directories like this, and needs no synchronising of them.
    if cfg!(windows) && path.is_dir() {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| io(path, error))
}

struct Writer<'a> {
    directory: &'a Path,
    codec: &'a IndexCodec,
    segments: &'a [&'a Segment],
    live: Option<&'a Bitmap>,
}

impl Writer<'_> {
    fn run(&self) -> Result<usize> {
        let kept = self.kept();
        let documents = kept.len();
        let tokens: usize =
            kept.iter().map(|&(segment, local)| self.segments[segment].rows(local).len()).sum();
        self.tables()?;
        let mut embedding_offset = 0;
        let chunks = kept.chunks(CHUNK).enumerate();
        for (chunk, kept) in chunks {
            embedding_offset += self.chunk(chunk, kept, embedding_offset)?;
        }
        if kept.is_empty() {
            self.chunk(0, &[], 0)?;
        }
        let num_chunks = documents.div_ceil(CHUNK).max(1);
        self.lists()?;
        let (nbits, dim) = (self.codec.nbits(), self.codec.dim());
        self.json(names::PLAN, &json!({ "nbits": nbits, "num_chunks": num_chunks }))?;
        self.json(
            names::METADATA,
            &json!({
                "num_chunks": num_chunks,
                "nbits": nbits,
                "num_partitions": self.codec.count(),
                "num_embeddings": tokens,
                "avg_doclen": if documents == 0 { 0.0 } else { tokens as f64 / documents as f64 },
                "num_documents": documents,
                "embedding_dim": dim,
                "compress_only": false,
                "next_plaid_compatible": true,
            }),
        )?;
        Ok(documents)
    }

    /// Segment and number within it of every document that is written, in order.
    fn kept(&self) -> Vec<(usize, usize)> {
        let all = self.segments.iter().enumerate();
        let all = all.flat_map(|(s, segment)| (0..segment.documents()).map(move |local| (s, local)));
        all.enumerate()
            .filter(|(document, _)| self.live.is_none_or(|live| live.contains(*document)))
            .map(|(_, place)| place)
            .collect()
    }

    fn tables(&self) -> Result<()> {
        let parts = self.codec.parts();
        let f32s =
            |name: &str, shape: Vec<usize>, values: Vec<f32>| self.array(name, Array::new(shape, values)?);
        let centroids = parts.centroids.data().to_f32();
        f32s(names::CENTROIDS, vec![self.codec.count(), parts.dim], centroids)?;
        f32s(names::CUTOFFS, vec![parts.bucket_cutoffs.len()], parts.bucket_cutoffs.clone())?;
        f32s(names::WEIGHTS, vec![parts.bucket_weights.len()], parts.bucket_weights.clone())?;
        f32s(names::AVG_RESIDUAL, vec![parts.dim], parts.avg_residual.clone())?;
        f32s(names::THRESHOLD, vec![1], vec![parts.cluster_threshold])
    }

    /// Writes the files of a chunk and returns how many tokens it has.
    fn chunk(&self, chunk: usize, kept: &[(usize, usize)], embedding_offset: usize) -> Result<usize> {
        let width = self.codec.residual_bytes();
        let lengths: Vec<usize> =
            kept.iter().map(|&(segment, local)| self.segments[segment].rows(local).len()).collect();
        let tokens = lengths.iter().sum::<usize>();
        self.stream(&names::chunk(chunk, "codes"), ElementType::I64, &[tokens], |to| {
            for &(segment, local) in kept {
                let segment = self.segments[segment];
                for &code in &segment.parts().codes[segment.rows(local)] {
                    to.write_all(&i64::from(code).to_le_bytes())?;
                }
            }
            Ok(())
        })?;
        self.stream(&names::chunk(chunk, "residuals"), ElementType::U8, &[tokens, width], |to| {
            for &(segment, local) in kept {
                let segment = self.segments[segment];
                let rows = segment.rows(local);
                to.write_all(&segment.parts().residuals[rows.start * width..rows.end * width])?;
            }
            Ok(())
        })?;
        self.json(&names::doclens(chunk), &json!(lengths))?;
        let metadata = json!({
            "num_documents": kept.len(),
            "num_embeddings": tokens,
            "embedding_offset": embedding_offset,
        });
        self.json(&names::chunk_metadata(chunk), &metadata)?;
        Ok(tokens)
    }

    /// The inverted lists, with documents renumbered as they are written.
    fn lists(&self) -> Result<()> {
        // Number of every document in the directory, if it is written.
        let mut numbers: Vec<Vec<Option<u32>>> =
            self.segments.iter().map(|segment| vec![None; segment.documents()]).collect();
        for (number, (segment, local)) in (0u32..).zip(self.kept()) {
            numbers[segment][local] = Some(number);
        }
        let list = |c: usize| {
            let all = self.segments.iter().zip(&numbers);
            all.flat_map(move |(segment, numbers)| {
                segment.list(c).filter_map(|document| numbers[document as usize])
            })
        };
        let lengths: Vec<i32> = (0..self.codec.count()).map(|c| list(c).count() as i32).collect();
        let total = lengths.iter().map(|&length| length as usize).sum();
        self.array(names::IVF_LENGTHS, Array::new(vec![lengths.len()], lengths)?)?;
        self.stream(names::IVF, ElementType::I64, &[total], |to| {
            for c in 0..self.codec.count() {
                for number in list(c) {
                    to.write_all(&i64::from(number).to_le_bytes())?;
                }
            }
            Ok(())
        })
    }

    fn array(&self, name: &str, array: Array) -> Result<()> {
        let path = self.directory.join(name);
        write_npy(&path, &array)?;
        sync(&path)
    }

    fn json(&self, name: &str, value: &serde_json::Value) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, value.to_string()).map_err(|error| io(&path, error))?;
        sync(&path)
    }

    /// Writes an array whose elements `write` gives, little-endian.
    fn stream(
        &self,
        name: &str,
        element_type: ElementType,
        shape: &[usize],
        write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<()> {
        let path = self.directory.join(name);
        let header = npy::header(element_type, shape)?;
        let work = || {
            let mut to = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            to.write_all(&header)?;
            write(&mut to)?;
            to.into_inner()?.sync_all()
        };
        work().map_err(|error| io(&path, error))
    }
}
