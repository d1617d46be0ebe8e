//! The file format that all files of an index have in common: a header, then sections with a checksum per block.
//!
//! ```text
//!  0  8  magic 89 4D 58 53 0D 0A 1A 0A
//!  8  2  major version     10  2  minor version     12  4  kind of file
//! 16  8  length of the file in bytes
//! 24  4  length of the header: a multiple of 64     28  4  number of sections S
//! 32  4  CRC-32C of the header, these four bytes as zeros
//! 36 28  zeros
//! 64     S × { tag 4, index of the first checksum 4, offset in the file 8, length in bytes 8 }
//!        CRC-32C (4 bytes each) of every 64 KiB block of every section, in the order of sections
//!        zeros up to the header's length
//! ```
//!
//! Sections start at multiples of 64 with zeros between them. A reader takes a header it can check alone, and then any range
//! of any section, in whole blocks that it can check alone.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use maxsim_core::plaid::Buffer;
use maxsim_core::{Error, Result};

use super::checksum::{crc32c, crc32c_append};
use super::corrupt;
use super::source::Source;
use super::storage::{Aligned, Bytes};
use super::wire;

/// What a file is, or a section: four ASCII characters.
pub(crate) type Tag = [u8; 4];

const MAGIC: [u8; 8] = *b"\x89MXS\r\n\x1a\n";
const MAJOR: u16 = 1;
const MINOR: u16 = 0;
/// Bytes of a section that share a checksum.
pub(crate) const BLOCK: usize = 1 << 16;
/// Alignment of sections: that of the widest vectors, and of cache lines.
const ALIGNMENT: usize = 64;
const FIXED: usize = 64;
const ENTRY: usize = 24;
/// More than any version of the format has; a header can then be read whole without believing it.
const MAX_SECTIONS: usize = 1 << 12;

/// What identifies a file's contents: its length, and the checksum of its header, which covers all checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) length: u64,
    pub(crate) checksum: u32,
}

/// Writes a file of the given sections.
pub(crate) fn write(
    sink: &mut (impl Write + ?Sized),
    kind: Tag,
    sections: &[(Tag, &[u8])],
) -> io::Result<Fingerprint> {
    let blocks: usize = sections.iter().map(|(_, bytes)| bytes.len().div_ceil(BLOCK)).sum();
    let header_length = (FIXED + ENTRY * sections.len() + 4 * blocks).next_multiple_of(ALIGNMENT);
    let mut table = wire::Writer::default();
    let mut checksums = wire::Writer::default();
    let (mut first, mut offset) = (0, header_length);
    for (tag, bytes) in sections {
        table.bytes(tag);
        table.u32(first as u32);
        table.size(offset);
        table.size(bytes.len());
        bytes.chunks(BLOCK).for_each(|block| checksums.u32(crc32c(block)));
        first += bytes.len().div_ceil(BLOCK);
        offset = (offset + bytes.len()).next_multiple_of(ALIGNMENT);
    }
    let mut header = wire::Writer::default();
    header.bytes(&MAGIC);
    header.bytes(&MAJOR.to_le_bytes());
    header.bytes(&MINOR.to_le_bytes());
    header.bytes(&kind);
    header.size(offset);
    header.u32(header_length as u32);
    header.u32(sections.len() as u32);
    header.align(FIXED);
    header.bytes(&table.finish());
    header.bytes(&checksums.finish());
    header.align(ALIGNMENT);
    let mut header = header.finish();
    let checksum = crc32c(&header);
    header[CHECKSUM_AT].copy_from_slice(&checksum.to_le_bytes());
    sink.write_all(&header)?;
    for (_, bytes) in sections {
        sink.write_all(bytes)?;
        sink.write_all(&[0; ALIGNMENT][..bytes.len().next_multiple_of(ALIGNMENT) - bytes.len()])?;
    }
    Ok(Fingerprint { length: offset as u64, checksum })
}

const CHECKSUM_AT: Range<usize> = 32..36;

/// Where a section lies.
#[derive(Debug, Clone)]
struct Section {
    tag: Tag,
    offset: u64,
    length: u64,
    first_checksum: usize,
}

/// A checked header.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    what: String,
    fingerprint: Fingerprint,
    sections: Vec<Section>,
    checksums: Vec<u32>,
    header_length: u64,
}

impl Header {
    /// Length of the header of a file that begins with `start`, its first 64 bytes, and has `length` bytes in all.
    fn length(start: &[u8], length: u64, kind: Tag, what: &str) -> Result<usize> {
        if start.get(..MAGIC.len()) != Some(&MAGIC[..]) {
            return Err(Error::format(what, "no file of a maxsim index (its first bytes are others)"));
        }
        let mut fields = wire::Reader::new(&start[MAGIC.len()..], what);
        let (major, minor) = (fields.u16()?, fields.u16()?);
        if major != MAJOR {
            return Err(Error::Version {
                what: what.to_owned(),
                found: format!("{major}.{minor}"),
                supported: format!("{MAJOR}.{MINOR}"),
            });
        }
        let found = fields.bytes(4)?;
        let (file_length, header_length) = (fields.u64()?, fields.u32()?);
        let sections = fields.u32()? as usize;
        if file_length != length {
            return Err(corrupt(what, format!("{length} bytes long, {file_length} when it was written")));
        }
        if found != kind {
            return Err(corrupt(what, format!("a {:?} file, not {:?}", text(found), text(&kind))));
        }
        let fits = u64::from(header_length) <= length
            && (header_length as usize).is_multiple_of(ALIGNMENT)
            && sections <= MAX_SECTIONS
            && FIXED + ENTRY * sections <= header_length as usize;
        if !fits {
            let problem = format!("its header of {header_length} bytes cannot hold {sections} sections");
            return Err(corrupt(what, problem));
        }
        Ok(header_length as usize)
    }

    /// The header `bytes`, which are as many as [`length`](Self::length) said.
    fn parse(bytes: &[u8], length: u64, what: &str) -> Result<Self> {
        let mut zeroed = bytes[..FIXED].to_vec();
        let stored = wire::Reader::new(&zeroed[CHECKSUM_AT], what).u32()?;
        zeroed[CHECKSUM_AT].fill(0);
        if !matches(crc32c_append(crc32c(&zeroed), &bytes[FIXED..]), stored) {
            return Err(corrupt(what, "the header's checksum does not match"));
        }
        // The checksum holds: what follows only finds files that were made to deceive.
        let fail = |problem: &str| Err(corrupt(what, format!("in its header, {problem}")));
        let count = wire::Reader::new(&bytes[28..32], what).u32()? as usize;
        let mut fields = wire::Reader::new(&bytes[FIXED..], what);
        let mut sections: Vec<Section> = Vec::with_capacity(count);
        let (mut end, mut blocks) = (bytes.len() as u64, 0usize);
        for _ in 0..count {
            let tag = fields.bytes(4)?.try_into().expect("four bytes");
            let first_checksum = fields.u32()? as usize;
            let (offset, section_length) = (fields.u64()?, fields.u64()?);
            let in_file = offset.checked_add(section_length).is_some_and(|end| end <= length);
            if offset < end
                || !offset.is_multiple_of(ALIGNMENT as u64)
                || !in_file
                || first_checksum != blocks
            {
                return fail("sections overlap or lie outside");
            }
            if sections.iter().any(|s| s.tag == tag) {
                return fail("a section appears twice");
            }
            end = offset + section_length;
            // Within a file of less than 2⁶⁴ bytes; the sum of lengths is too, since sections do not overlap.
            blocks += usize::try_from(section_length.div_ceil(BLOCK as u64)).map_err(|_| {
                corrupt(
                    what,
                    format!("a section of {section_length} bytes is more than this machine can address"),
                )
            })?;
            sections.push(Section { tag, offset, length: section_length, first_checksum });
        }
        if fields.position() + FIXED + 4 * blocks > bytes.len() {
            return fail("there are fewer checksums than blocks");
        }
        let checksums = (0..blocks).map(|_| fields.u32()).collect::<Result<_>>()?;
        let fingerprint = Fingerprint { length, checksum: stored };
        let what = what.to_owned();
        Ok(Self { what, fingerprint, sections, checksums, header_length: bytes.len() as u64 })
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn section(&self, tag: Tag) -> Result<&Section> {
        let missing = || corrupt(&self.what, format!("it has no section {:?}", text(&tag)));
        self.sections.iter().find(|s| s.tag == tag).ok_or_else(missing)
    }

    /// Compares blocks of a section, from block `first` on, with their checksums.
    fn check(&self, section: &Section, first: usize, blocks: &[u8]) -> Result<()> {
        let checksums = &self.checksums[section.first_checksum + first..];
        match blocks.chunks(BLOCK).zip(checksums).position(|(block, &sum)| !matches(crc32c(block), sum)) {
            None => Ok(()),
            Some(at) => {
                let start = section.offset + ((first + at) * BLOCK) as u64;
                let problem = format!(
                    "the checksum of section {:?} does not match in the block at byte {start}",
                    text(&section.tag)
                );
                Err(corrupt(&self.what, problem))
            }
        }
    }
}

/// Whether a checksum is the one stored. A fuzzer has to get behind this.
fn matches(checksum: u32, stored: u32) -> bool {
    cfg!(fuzzing) || checksum == stored
}

fn text(tag: &[u8]) -> String {
    String::from_utf8_lossy(tag).into_owned()
}

/// A file in memory whose header was checked.
#[derive(Clone)]
pub(crate) struct Container {
    header: Arc<Header>,
    bytes: Bytes,
}

impl Container {
    /// Checks the header.
    ///
    /// # Errors
    /// `ERR_FORMAT` for a foreign file, `ERR_VERSION` for a newer one, `ERR_CORRUPT` for a damaged one.
    pub(crate) fn open(bytes: Bytes, kind: Tag, what: &str) -> Result<Self> {
        let all = (*bytes).as_ref();
        let length = all.len() as u64;
        let Some(start) = all.get(..FIXED) else {
            // Too short to say what it was; as a rule it was one of ours that was cut.
            return Err(corrupt(what, format!("{length} bytes long, which is no whole header")));
        };
        let header = Header::parse(&all[..Header::length(start, length, kind, what)?], length, what)?;
        Ok(Self { header: Arc::new(header), bytes })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Whether there is a section of this tag.
    pub(crate) fn has(&self, tag: Tag) -> bool {
        self.header.section(tag).is_ok()
    }

    /// Where a section lies in the file.
    pub(crate) fn range(&self, tag: Tag) -> Result<Range<usize>> {
        let section = self.header.section(tag)?;
        // Within the file, which is in memory.
        Ok(section.offset as usize..(section.offset + section.length) as usize)
    }

    /// The bytes of a section, unchecked.
    pub(crate) fn bytes(&self, tag: Tag) -> Result<&[u8]> {
        let missing = || corrupt(&self.header.what, format!("section {:?} was not read", text(&tag)));
        (*self.bytes).as_ref().get(self.range(tag)?).ok_or_else(missing)
    }

    /// The bytes of a section, compared with their checksums.
    pub(crate) fn checked(&self, tag: Tag) -> Result<&[u8]> {
        let bytes = self.bytes(tag)?;
        self.header.check(self.header.section(tag)?, 0, bytes)?;
        Ok(bytes)
    }

    /// A section as numbers, unchecked.
    pub(crate) fn buffer<T: Pod>(&self, tag: Tag) -> Result<Buffer<T>> {
        Buffer::view(self.bytes.clone(), self.range(tag)?).map_err(|_| {
            corrupt(&self.header.what, format!("section {:?} holds no whole numbers", text(&tag)))
        })
    }

    /// A section as numbers, compared with its checksums.
    pub(crate) fn checked_buffer<T: Pod>(&self, tag: Tag) -> Result<Buffer<T>> {
        self.checked(tag)?;
        self.buffer(tag)
    }

    /// Compares everything with its checksum, and the bytes between sections with zero.
    pub(crate) fn verify(&self) -> Result<()> {
        let all = (*self.bytes).as_ref();
        let mut end = self.header.header_length as usize;
        let padding = |range: Range<usize>| {
            let problem =
                || corrupt(&self.header.what, format!("bytes between sections at {range:?} are not 0"));
            if all[range.clone()].iter().all(|&b| b == 0) { Ok(()) } else { Err(problem()) }
        };
        for section in &self.header.sections {
            padding(end..section.offset as usize)?;
            end = (section.offset + section.length) as usize;
            self.header.check(section, 0, &all[section.offset as usize..end])?;
        }
        padding(end..all.len())
    }

    /// The file's name, as errors give it.
    pub(crate) fn what(&self) -> &str {
        &self.header.what
    }
}

/// A file that is read by ranges, whose header was read and checked.
pub(crate) struct Remote<S> {
    header: Header,
    source: S,
}

/// What is read first: most headers whole.
const FIRST_READ: u64 = 4096;
/// Bytes asked for at a time where much is read.
const READ: u64 = 1 << 20;

/// Blocks of a section, in order, that lie next to each other.
pub(crate) type Blocks = Range<u64>;

impl<S: Source> Remote<S> {
    /// Reads and checks the header, in one read or two.
    ///
    /// # Errors
    /// As [`Container::open`], and the source's.
    pub(crate) async fn open(source: S, kind: Tag) -> Result<Self> {
        let (what, length) = (source.name().to_owned(), source.size());
        let mut start = source.read(0..length.min(FIRST_READ)).await?;
        if start.len() < FIXED {
            return Err(corrupt(&what, format!("{length} bytes long, which is no whole header")));
        }
        let header_length = Header::length(&start[..FIXED], length, kind, &what)?;
        if start.len() < header_length {
            start.extend(source.read(start.len() as u64..header_length as u64).await?);
        }
        let found = start.get(..header_length);
        let header = found.ok_or_else(|| Error::io(&what, "fewer bytes than were asked for"))?;
        Ok(Self { header: Header::parse(header, length, &what)?, source })
    }

    /// Bytes `range` of a section, compared with the checksums of the blocks they lie in.
    ///
    /// # Errors
    /// `ERR_CORRUPT` where they do not match or the section is shorter, and the source's.
    pub(crate) async fn read(&self, tag: Tag, range: Range<u64>) -> Result<Vec<u8>> {
        let section = self.header.section(tag)?;
        if range.end > section.length || range.start > range.end {
            let problem = format!("section {:?} has no bytes {range:?}", text(&tag));
            return Err(corrupt(&self.header.what, problem));
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let block = BLOCK as u64;
        let start = range.start / block * block;
        let end = range.end.next_multiple_of(block).min(section.length);
        let mut bytes = self.source.read(section.offset + start..section.offset + end).await?;
        if bytes.len() as u64 != end - start {
            return Err(Error::io(&self.header.what, "fewer bytes than were asked for"));
        }
        self.header.check(section, (start / block) as usize, &bytes)?;
        bytes.truncate((range.end - start) as usize);
        Ok(bytes.split_off((range.start - start) as usize))
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Reads whole blocks of a section, each compared with its checksum.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) async fn read_blocks(&self, tag: Tag, blocks: Blocks) -> Result<Vec<u8>> {
        let block = BLOCK as u64;
        self.read(tag, blocks.start * block..(blocks.end * block).min(self.length(tag)?)).await
    }

    /// The file as far as section `tag`, of which nothing is read: the sections before it can be looked at, and what the header
    /// says of all. `progress` is told of bytes as they come.
    ///
    /// # Errors
    /// The source's, and that of `progress`.
    pub(crate) async fn before(
        &self,
        tag: Tag,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Container> {
        let end = self.header.section(tag)?.offset;
        let length = usize::try_from(end)
            .map_err(|_| corrupt(&self.header.what, format!("{end} bytes are more than can be addressed")))?;
        let mut bytes = Aligned::zeroed(length);
        let mut start = 0;
        while start < end {
            let stop = (start + READ).min(end);
            let part = self.source.read(start..stop).await?;
            let to = &mut bytes.as_mut()[start as usize..stop as usize];
            if part.len() != to.len() {
                return Err(Error::io(&self.header.what, "another number of bytes than were asked for"));
            }
            to.copy_from_slice(&part);
            progress(stop - start)?;
            start = stop;
        }
        Ok(Container { header: Arc::new(self.header.clone()), bytes: Arc::new(bytes) })
    }

    /// Where a section lies in the file.
    pub(crate) fn range(&self, tag: Tag) -> Result<Range<u64>> {
        let section = self.header.section(tag)?;
        Ok(section.offset..section.offset + section.length)
    }

    /// Length of a section.
    pub(crate) fn length(&self, tag: Tag) -> Result<u64> {
        Ok(self.header.section(tag)?.length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::storage::shared;
    use super::super::{MemorySource, Source};
    use super::*;

    const KIND: Tag = *b"TEST";

    fn file(sections: &[(Tag, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let fingerprint = write(&mut bytes, KIND, sections).unwrap();
        assert_eq!(fingerprint.length, bytes.len() as u64);
        bytes
    }

    fn verified(bytes: &[u8]) -> Result<Container> {
        let container = Container::open(shared(bytes), KIND, "file")?;
        container.verify()?;
        Ok(container)
    }

    #[test]
    fn sections_are_read_as_they_were_written() {
        let long: Vec<u8> = (0..3 * BLOCK + 17).map(|i| (i * 7 / 3) as u8).collect();
        let bytes = file(&[(*b"AAAA", b"abc"), (*b"NONE", b""), (*b"LONG", &long)]);
        let container = verified(&bytes).unwrap();
        assert_eq!(container.checked(*b"AAAA").unwrap(), b"abc");
        assert_eq!(container.checked(*b"NONE").unwrap(), b"");
        assert_eq!(container.checked(*b"LONG").unwrap(), long);
        assert_eq!(container.bytes(*b"LONG").unwrap().as_ptr() as usize % ALIGNMENT, 0);
        assert!(container.checked(*b"WHAT").is_err());
        assert!(container.buffer::<u32>(*b"AAAA").is_err());
    }

    #[test]
    fn no_flipped_bit_and_no_missing_byte_goes_unnoticed() {
        let bytes = file(&[(*b"AAAA", b"some bytes"), (*b"BBBB", &[7; 100])]);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(verified(&damaged).is_err(), "bit {bit} of byte {at}");
            }
            assert!(verified(&bytes[..at]).is_err(), "cut at {at}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(verified(&longer).is_err());
    }

    #[test]
    fn a_newer_file_says_so() {
        let mut bytes = file(&[]);
        bytes[8] = 2;
        let error = Container::open(shared(&bytes), KIND, "file").err().unwrap();
        assert_eq!(error.to_string(), "file: version 2.0 is not readable here (newest known: 1.0)");
    }

    #[test]
    fn ranges_are_read_and_checked_by_the_block() {
        let long: Vec<u8> = (0..5 * BLOCK + 1000).map(|i| (i * 7 / 3) as u8).collect();
        // So many sections that the header is longer than the first read.
        let names: Vec<Tag> = (0..200u32).map(|i| (i + 1000).to_le_bytes()).collect();
        let mut sections: Vec<(Tag, &[u8])> = names.iter().map(|&tag| (tag, &b"x"[..])).collect();
        sections.push((*b"LONG", &long));
        let mut bytes = file(&sections);
        let read = |bytes: &[u8], range: Range<u64>| {
            let source = MemorySource::new("file", shared(bytes));
            assert_eq!(source.size(), bytes.len() as u64);
            pollster::block_on(async {
                let remote = Remote::open(source, KIND).await?;
                assert_eq!(remote.length(*b"LONG")?, long.len() as u64);
                remote.read(*b"LONG", range).await
            })
        };
        for range in [0..0, 0..1, 65_535..65_537, 131_072..200_000, 5 * BLOCK..long.len(), 0..long.len()] {
            assert_eq!(read(&bytes, range.start as u64..range.end as u64).unwrap(), &long[range]);
        }
        assert!(read(&bytes, 0..long.len() as u64 + 1).is_err());
        let at = bytes.len() - 2 * BLOCK - 1000;
        bytes[at] ^= 1;
        assert!(read(&bytes, 0..BLOCK as u64).is_ok());
        assert_eq!(read(&bytes, 0..long.len() as u64).unwrap_err().code().as_str(), "ERR_CORRUPT");
    }

    #[test]
    fn headers_made_to_deceive_are_refused() {
        let bytes = file(&[(*b"AAAA", b"abc"), (*b"BBBB", b"de")]);
        // A valid checksum over fields that cannot be.
        let with = |at: usize, value: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes[CHECKSUM_AT].fill(0);
            let header_length = (bytes[24] as usize).clamp(64, bytes.len());
            let checksum = crc32c(&bytes[..header_length]);
            bytes[CHECKSUM_AT].copy_from_slice(&checksum.to_le_bytes());
            verified(&bytes)
        };
        assert!(with(64, b"AAAA").is_ok());
        for (at, value) in [
            (24, &u32::MAX.to_le_bytes()[..]), // header length
            (24, &63u32.to_le_bytes()),
            (28, &u32::MAX.to_le_bytes()), // sections
            (28, &0u32.to_le_bytes()),     // section bytes are then "between sections", and not 0
            (68, &1u32.to_le_bytes()),     // first checksum
            (72, &0u64.to_le_bytes()),     // offset: in the header
            (72, &u64::MAX.to_le_bytes()),
            (72, &(u64::MAX - 63).to_le_bytes()),
            (80, &u64::MAX.to_le_bytes()), // length
            (80, &200u64.to_le_bytes()),
            (88, b"AAAA"), // twice
        ] {
            assert!(with(at, value).is_err(), "{at} {value:?}");
        }
    }
}
