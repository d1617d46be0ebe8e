//! External ids of documents: numbers or texts, which stay with their documents whatever happens to others.

use std::cmp::Ordering;
use std::fmt;

use maxsim_core::plaid::Buffer;
use maxsim_core::{Error, Result};

use crate::store::container::{Container, Tag};
use crate::store::corrupt;

/// What the ids of an index are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdKind {
    /// Numbers of 64 bits.
    Number,
    /// Texts of up to 65,535 bytes of UTF-8.
    Text,
}

impl IdKind {
    /// An id of this kind as people write it.
    ///
    /// # Errors
    /// `ERR_VALUE` (argument `id`) for what is no number where one has to be.
    pub fn parse(self, text: &str) -> Result<DocumentId> {
        match self {
            Self::Text => Ok(text.into()),
            Self::Number => text
                .parse()
                .map(DocumentId::Number)
                .map_err(|_| Error::value("id", "a number below 2⁶⁴", format!("{text:?}"))),
        }
    }
}

impl fmt::Display for IdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "number",
            Self::Text => "text",
        })
    }
}

/// External id of a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DocumentId {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

impl DocumentId {
    /// Which kind it is.
    pub fn kind(&self) -> IdKind {
        match self {
            Self::Number(_) => IdKind::Number,
            Self::Text(_) => IdKind::Text,
        }
    }
}

impl From<u64> for DocumentId {
    fn from(id: u64) -> Self {
        Self::Number(id)
    }
}

impl From<String> for DocumentId {
    fn from(id: String) -> Self {
        Self::Text(id)
    }
}

impl From<&str> for DocumentId {
    fn from(id: &str) -> Self {
        Self::Text(id.to_owned())
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => write!(f, "{id}"),
            Self::Text(id) => write!(f, "{id:?}"),
        }
    }
}

const MAX_TEXT: usize = u16::MAX as usize;

/// Checks that ids are of an index's kind.
pub(crate) fn check(ids: &[DocumentId], kind: IdKind) -> Result<()> {
    for (i, id) in ids.iter().enumerate() {
        if id.kind() != kind {
            return Err(Error::index("ids", i, format!("a {kind}, as all ids of the index"), id.to_string()));
        }
        if let DocumentId::Text(text) = id
            && text.len() > MAX_TEXT
        {
            let got = format!("{} bytes", text.len());
            return Err(Error::index("ids", i, format!("at most {MAX_TEXT} bytes"), got));
        }
    }
    Ok(())
}

#[derive(Debug, Clone)]
enum Values {
    Numbers(Buffer<u64>),
    Texts { offsets: Buffer<u64>, bytes: Buffer<u8> },
}

/// Ids of a segment's documents, and the documents in the order of their ids, so that one is found by bisection where it lies.
#[derive(Debug, Clone)]
pub(crate) struct IdTable {
    values: Values,
    order: Buffer<u32>,
}

const NUMBERS: Tag = *b"IDSN";
const TEXT_OFFSETS: Tag = *b"IDSO";
const TEXT_BYTES: Tag = *b"IDSB";
const ORDER: Tag = *b"IDSX";

impl IdTable {
    /// Ids, all of `kind` and each once.
    pub(crate) fn new(ids: &[DocumentId], kind: IdKind) -> Self {
        let values = match kind {
            IdKind::Number => {
                let number = |id: &DocumentId| match id {
                    DocumentId::Number(id) => *id,
                    DocumentId::Text(_) => unreachable!("ids were checked"),
                };
                Values::Numbers(ids.iter().map(number).collect::<Vec<_>>().into())
            }
            IdKind::Text => {
                let mut offsets = vec![0u64];
                let mut bytes = Vec::new();
                for id in ids {
                    let DocumentId::Text(text) = id else { unreachable!("ids were checked") };
                    bytes.extend_from_slice(text.as_bytes());
                    offsets.push(bytes.len() as u64);
                }
                Values::Texts { offsets: offsets.into(), bytes: bytes.into() }
            }
        };
        let mut order: Vec<u32> = (0..ids.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| ids[a as usize].cmp(&ids[b as usize]));
        Self { values, order: order.into() }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    fn text(&self, document: usize) -> &[u8] {
        match &self.values {
            Values::Texts { offsets, bytes } => {
                &bytes[offsets[document] as usize..offsets[document + 1] as usize]
            }
            Values::Numbers(_) => &[],
        }
    }

    /// Id of a document. Panics if there is no such document.
    pub(crate) fn get(&self, document: usize) -> DocumentId {
        match &self.values {
            Values::Numbers(ids) => DocumentId::Number(ids[document]),
            Values::Texts { .. } => {
                DocumentId::Text(String::from_utf8_lossy(self.text(document)).into_owned())
            }
        }
    }

    fn compare(&self, document: usize, id: &DocumentId) -> Ordering {
        match (&self.values, id) {
            (Values::Numbers(ids), DocumentId::Number(id)) => ids[document].cmp(id),
            (Values::Texts { .. }, DocumentId::Text(id)) => self.text(document).cmp(id.as_bytes()),
            (Values::Numbers(_), DocumentId::Text(_)) => Ordering::Less,
            (Values::Texts { .. }, DocumentId::Number(_)) => Ordering::Greater,
        }
    }

    /// The document of this id.
    pub(crate) fn find(&self, id: &DocumentId) -> Option<usize> {
        let found = self.order.binary_search_by(|&document| self.compare(document as usize, id));
        found.ok().map(|at| self.order[at] as usize)
    }

    /// Sections of a segment's file.
    pub(crate) fn sections(&self) -> Vec<(Tag, &[u8])> {
        let mut sections = match &self.values {
            Values::Numbers(ids) => vec![(NUMBERS, bytemuck::cast_slice(ids))],
            Values::Texts { offsets, bytes } => {
                vec![(TEXT_OFFSETS, bytemuck::cast_slice(offsets)), (TEXT_BYTES, &**bytes)]
            }
        };
        sections.push((ORDER, bytemuck::cast_slice(&self.order)));
        sections
    }

    /// Reads them back, compared with their checksums and with each other.
    ///
    /// # Errors
    /// `ERR_CORRUPT`.
    pub(crate) fn read(file: &Container, documents: usize, kind: IdKind) -> Result<Self> {
        let fail = |problem: &str| Err(corrupt(file.what(), problem));
        let values = match kind {
            IdKind::Number => Values::Numbers(file.checked_buffer(NUMBERS)?),
            IdKind::Text => Values::Texts {
                offsets: file.checked_buffer(TEXT_OFFSETS)?,
                bytes: file.checked_buffer(TEXT_BYTES)?,
            },
        };
        let count = match &values {
            Values::Numbers(ids) => ids.len(),
            Values::Texts { offsets, bytes } => {
                let ascending = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
                if !ascending || offsets.last() != Some(&(bytes.len() as u64)) {
                    return fail("ids overlap");
                }
                offsets.len() - 1
            }
        };
        let table = Self { values, order: file.checked_buffer(ORDER)? };
        if count != documents || table.len() != documents {
            return fail("there is not one id per document");
        }
        // Strictly ascending ids by documents in range: the order names every document, and every id is there once.
        if table.order.iter().any(|&document| document as usize >= documents) {
            return fail("the order of ids names a document that there is not");
        }
        let sorted = table.order.windows(2).all(|pair| {
            let (a, b) = (pair[0] as usize, pair[1] as usize);
            match &table.values {
                Values::Numbers(ids) => ids[a] < ids[b],
                Values::Texts { .. } => table.text(a) < table.text(b),
            }
        });
        if !sorted {
            return fail("ids are not in their order, or one is there twice");
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_found_by_their_ids() {
        let ids: Vec<DocumentId> = [7u64, 3, u64::MAX, 0].into_iter().map(DocumentId::from).collect();
        let table = IdTable::new(&ids, IdKind::Number);
        let names: Vec<DocumentId> = ["b", "", "ä", "a"].into_iter().map(DocumentId::from).collect();
        let texts = IdTable::new(&names, IdKind::Text);
        for i in 0..4 {
            assert_eq!((table.get(i), table.find(&ids[i])), (ids[i].clone(), Some(i)));
            assert_eq!((texts.get(i), texts.find(&names[i])), (names[i].clone(), Some(i)));
        }
        assert_eq!(table.find(&5.into()), None);
        assert_eq!(table.find(&"7".into()), None);
        assert_eq!(texts.find(&7.into()), None);
        let error = check(&[1.into(), "x".into()], IdKind::Number).unwrap_err();
        assert_eq!(error.to_string(), "ids[1]: expected a number, as all ids of the index, got \"x\"");
    }
}
