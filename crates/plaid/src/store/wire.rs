//! Little-endian records, written to and read from bytes.

use maxsim_core::{Error, Result};

use super::corrupt;

/// Appends numbers and texts to bytes.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, x: u8) {
        self.0.push(x);
    }

    pub(crate) fn u32(&mut self, x: u32) {
        self.0.extend(x.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, x: u64) {
        self.0.extend(x.to_le_bytes());
    }

    /// A length, a count or a position.
    pub(crate) fn size(&mut self, x: usize) {
        self.u64(x as u64);
    }

    /// Length (u32) and UTF-8 bytes.
    pub(crate) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes(text.as_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// Zeros up to a multiple of `alignment`.
    pub(crate) fn align(&mut self, alignment: usize) {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what [`Writer`] wrote, believing nothing: every length is compared with the bytes that are there.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'a str,
}

impl<'a> Reader<'a> {
    /// `what` names the bytes in errors.
    pub(crate) fn new(bytes: &'a [u8], what: &'a str) -> Self {
        Self { bytes, at: 0, what }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let found = self.at.checked_add(len).and_then(|end| self.bytes.get(self.at..end));
        let found =
            found.ok_or_else(|| self.fail(format!("ends at byte {}, inside a record", self.bytes.len())))?;
        self.at += len;
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.bytes(N)?.try_into().expect("as many bytes as were asked for"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length, a count or a position, which this machine can address.
    pub(crate) fn size(&mut self) -> Result<usize> {
        let x = self.u64()?;
        usize::try_from(x).map_err(|_| self.fail(format!("{x} is more than this machine can address")))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        let len = self.u32()? as usize;
        let bytes = self.bytes(len)?;
        std::str::from_utf8(bytes).map_err(|_| self.fail("a text is not UTF-8"))
    }

    /// Where the next record begins.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Whether all bytes were read.
    pub(crate) fn finish(self) -> Result<()> {
        if self.at == self.bytes.len() {
            return Ok(());
        }
        Err(self.fail(format!("{} bytes behind the last record", self.bytes.len() - self.at)))
    }

    pub(crate) fn fail(&self, problem: impl Into<String>) -> Error {
        corrupt(self.what, problem)
    }
}
