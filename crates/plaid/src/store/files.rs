//! What is in the numbered files: the codec, and segments.

use maxsim_core::plaid::{Buffer, Segment, SegmentParts};
use maxsim_core::{DType, Error, Result};

use super::container::{Container, Tag};
use super::manifest::{FileRef, Role, SegmentRef, open_numbered, write_numbered};
use super::storage::Storage;
use super::{corrupt, wire};
use crate::codec::{Centroids, CodecParts, IndexCodec};
use crate::ids::{IdKind, IdTable};
use crate::metadata::Columns;

pub(crate) const CODEC: Tag = *b"CODC";
pub(crate) const SEGMENT: Tag = *b"SEGM";
const HEAD: Tag = *b"HEAD";
const CENTROIDS: Tag = *b"CENT";
const CUTOFFS: Tag = *b"CUTS";
const WEIGHTS: Tag = *b"WGTS";
const AVERAGE: Tag = *b"AVGR";
const OFFSETS: Tag = *b"DOFF";
const CODES: Tag = *b"CODE";
pub(crate) const RESIDUALS: Tag = *b"RESI";
const NORMS: Tag = *b"NORM";
const LIST_OFFSETS: Tag = *b"LOFF";
const LISTS: Tag = *b"LIST";

/// How much of a file is compared with its checksums when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Everything but residuals and inverse norms: all that could make a search wrong about which document is which. Residuals
    /// are then read from the disk only as they are needed.
    #[default]
    Structure,
    /// Everything.
    All,
}

/// What was stored contradicts itself: whatever the reason, about the file.
fn about(what: &str) -> impl Fn(Error) -> Error + '_ {
    move |error| corrupt(what, error.to_string())
}

pub(crate) fn write_codec(storage: &dyn Storage, number: u64, codec: &IndexCodec) -> Result<FileRef> {
    let parts = codec.parts();
    let mut head = wire::Writer::default();
    head.u32(codec.dim() as u32);
    head.u32(codec.nbits());
    head.u32(match codec.dtype() {
        DType::F16 => 1,
        _ => 0,
    });
    head.u32(parts.cluster_threshold.to_bits());
    head.size(codec.count());
    let head = head.finish();
    let centroids: &[u8] = match &parts.centroids {
        Centroids::F32(values) => bytemuck::cast_slice(values),
        Centroids::F16(values) => bytemuck::cast_slice(values),
    };
    let sections = [
        (HEAD, &head[..]),
        (CENTROIDS, centroids),
        (CUTOFFS, bytemuck::cast_slice(&parts.bucket_cutoffs)),
        (WEIGHTS, bytemuck::cast_slice(&parts.bucket_weights)),
        (AVERAGE, bytemuck::cast_slice(&parts.avg_residual)),
    ];
    write_numbered(storage, Role::Codec, number, CODEC, &sections)
}

pub(crate) fn read_codec(storage: &dyn Storage, file: &FileRef) -> Result<IndexCodec> {
    let file = open_numbered(storage, file, CODEC)?;
    file.verify()?;
    let what = file.what();
    let mut head = wire::Reader::new(file.bytes(HEAD)?, what);
    let (dim, nbits, dtype) = (head.u32()? as usize, head.u32()?, head.u32()?);
    let (threshold, count) = (f32::from_bits(head.u32()?), head.size()?);
    head.finish()?;
    let centroids = match dtype {
        0 => Centroids::F32(file.buffer(CENTROIDS)?),
        1 => Centroids::F16(file.buffer(CENTROIDS)?),
        other => return Err(corrupt(what, format!("{other} is no type of centroids"))),
    };
    let parts = CodecParts {
        centroids,
        dim,
        nbits,
        bucket_cutoffs: file.buffer(CUTOFFS)?.to_vec(),
        bucket_weights: file.buffer(WEIGHTS)?.to_vec(),
        avg_residual: file.buffer(AVERAGE)?.to_vec(),
        cluster_threshold: threshold,
    };
    let codec = IndexCodec::new(parts).map_err(about(what))?;
    if codec.count() != count {
        return Err(corrupt(what, format!("{} centroids, not the {count} it speaks of", codec.count())));
    }
    Ok(codec)
}

/// Documents with all that belongs to them.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) segment: Segment,
    pub(crate) ids: IdTable,
    pub(crate) columns: Columns,
}

pub(crate) fn write_segment(storage: &dyn Storage, number: u64, stored: &Stored) -> Result<SegmentRef> {
    let parts = stored.segment.parts();
    let mut head = wire::Writer::default();
    head.size(stored.segment.documents());
    head.size(stored.segment.tokens());
    let head = head.finish();
    let mut sections: Vec<(Tag, &[u8])> = vec![
        (HEAD, &head),
        (OFFSETS, bytemuck::cast_slice(&parts.offsets)),
        (LIST_OFFSETS, bytemuck::cast_slice(&parts.list_offsets)),
        (LISTS, bytemuck::cast_slice(&parts.list_entries)),
    ];
    sections.extend(stored.ids.sections());
    let columns = stored.columns.sections();
    sections.extend(columns.iter().map(|(tag, bytes)| (*tag, &bytes[..])));
    sections.extend([
        (CODES, bytemuck::cast_slice(&parts.codes)),
        (NORMS, bytemuck::cast_slice(&parts.inv_norms)),
        (RESIDUALS, &parts.residuals[..]),
    ]);
    Ok(SegmentRef {
        file: write_numbered(storage, Role::Segment, number, SEGMENT, &sections)?,
        documents: stored.segment.documents(),
        tokens: stored.segment.tokens(),
        deleted: None,
    })
}

pub(crate) fn read_segment(
    storage: &dyn Storage,
    segment: &SegmentRef,
    codec: &IndexCodec,
    ids: IdKind,
    verify: Verify,
) -> Result<Stored> {
    let file = open_numbered(storage, &segment.file, SEGMENT)?;
    if verify == Verify::All {
        file.verify()?;
    }
    segment_of(&file, segment, codec, ids, true)
}

/// The segment in a file: everything but residuals and inverse norms compared with its checksums; `residuals`: with them, or without
/// them, and inverse norms compared as well.
pub(crate) fn segment_of(
    file: &Container,
    segment: &SegmentRef,
    codec: &IndexCodec,
    ids: IdKind,
    residuals: bool,
) -> Result<Stored> {
    let what = file.what();
    let mut head = wire::Reader::new(file.checked(HEAD)?, what);
    if (head.size()?, head.size()?) != (segment.documents, segment.tokens) {
        return Err(corrupt(what, "it holds other numbers of documents and tokens than the manifest says"));
    }
    head.finish()?;
    let offsets: Buffer<u32> = file.checked_buffer(OFFSETS)?;
    if offsets.len() != segment.documents + 1 {
        return Err(corrupt(what, "there is not one offset per document"));
    }
    let parts = SegmentParts {
        offsets,
        codes: file.checked_buffer(CODES)?,
        residuals: if residuals { file.buffer(RESIDUALS)? } else { Vec::new().into() },
        inv_norms: if residuals { file.buffer(NORMS)? } else { file.checked_buffer(NORMS)? },
        list_offsets: file.checked_buffer(LIST_OFFSETS)?,
        list_entries: file.checked_buffer(LISTS)?,
    };
    let make = if residuals { Segment::new } else { Segment::without_residuals };
    let stored = Stored {
        segment: make(parts, codec.count(), codec.residual_bytes()).map_err(about(what))?,
        ids: IdTable::read(file, segment.documents, ids)?,
        columns: Columns::read(file, segment.documents)?,
    };
    if stored.segment.tokens() != segment.tokens {
        return Err(corrupt(what, "it holds another number of tokens than it says"));
    }
    Ok(stored)
}
