//! Columns of metadata, as a segment stores them.

use maxsim_core::plaid::{Bitmap, Buffer};
use maxsim_core::{Error, Result};

use super::value::{ColumnType, Row, Value};
use crate::store::container::{Container, Tag};
use crate::store::wire;

/// Columns an index may have.
const MAX_COLUMNS: usize = 256;
/// Bytes a column's name may have.
const MAX_NAME: usize = 255;

/// Names and types of an index's columns, in the order they first came.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Schema(Vec<(String, ColumnType)>);

impl Schema {
    pub(crate) fn columns(&self) -> &[(String, ColumnType)] {
        &self.0
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(n, _)| n == name)
    }

    /// Adds the columns that `rows` bring along, after checking every value.
    ///
    /// # Errors
    /// `ERR_INDEX` (argument `metadata`) naming the row for a value that its column cannot hold or a column named twice,
    /// `ERR_LIMIT` for too many columns or too long a name.
    pub(crate) fn extend(&mut self, rows: &[Row]) -> Result<()> {
        for (i, row) in rows.iter().enumerate() {
            for (at, (name, value)) in row.iter().enumerate() {
                let fail = |expected: String, got: String| Err(Error::index("metadata", i, expected, got));
                if row[..at].iter().any(|(other, _)| other == name) {
                    return fail("each column once".into(), format!("{name:?} twice"));
                }
                if let Value::Float(x) = value
                    && !x.is_finite()
                {
                    return fail(format!("a finite number for {name:?}"), crate::number::written(*x));
                }
                let Some(own) = value.column_type() else { continue };
                match self.find(name) {
                    Some(column) => {
                        let column = self.0[column].1;
                        if value.coerced(column).is_none() {
                            return fail(format!("values of type {column} for {name:?}"), value.to_string());
                        }
                    }
                    None => self.push(name, own)?,
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, name: &str, column: ColumnType) -> Result<()> {
        let limit =
            |limit: String, got: String| Err(Error::Limit { argument: "metadata".into(), limit, got });
        if self.0.len() == MAX_COLUMNS {
            return limit(format!("{MAX_COLUMNS} columns"), format!("one more, {name:?}"));
        }
        if name.is_empty() || name.len() > MAX_NAME {
            return limit(format!("names of 1 to {MAX_NAME} bytes"), format!("{} bytes", name.len()));
        }
        self.0.push((name.to_owned(), column));
        Ok(())
    }

    pub(crate) fn write(&self, record: &mut wire::Writer) {
        record.u32(self.0.len() as u32);
        for (name, column) in &self.0 {
            record.u8(column.number());
            record.text(name);
        }
    }

    pub(crate) fn read(record: &mut wire::Reader<'_>) -> Result<Self> {
        let count = record.u32()? as usize;
        let mut schema = Self::default();
        for _ in 0..count {
            let number = record.u8()?;
            let column = ColumnType::from_number(number)
                .ok_or_else(|| record.fail(format!("{number} is no type of a column")))?;
            let name = record.text()?;
            if schema.find(name).is_some() || schema.push(name, column).is_err() {
                return Err(record.fail(format!("column {name:?} is twice there, one too many or misnamed")));
            }
        }
        Ok(schema)
    }
}

/// One column: which documents have a value, and the values (anything for the others).
#[derive(Debug, Clone)]
struct Column {
    name: String,
    present: Bitmap,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    Bool(Bitmap),
    Int(Buffer<i64>),
    Float(Buffer<f64>),
    Text { offsets: Buffer<u64>, bytes: Buffer<u8> },
}

/// A value where it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    /// UTF-8, by the writer's word.
    Text(&'a [u8]),
}

/// Metadata of a segment's documents.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    rows: usize,
    columns: Vec<Column>,
}

impl Columns {
    /// Documents.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// Value of a column for a document, `None` for null. Panics if there is no such column or document.
    pub(super) fn cell(&self, column: usize, row: usize) -> Option<Cell<'_>> {
        let column = &self.columns[column];
        column.present.contains(row).then(|| match &column.data {
            Data::Bool(values) => Cell::Bool(values.contains(row)),
            Data::Int(values) => Cell::Int(values[row]),
            Data::Float(values) => Cell::Float(values[row]),
            Data::Text { offsets, bytes } => {
                Cell::Text(&bytes[offsets[row] as usize..offsets[row + 1] as usize])
            }
        })
    }

    /// Metadata of a document, without nulls. Panics if there is no such document.
    pub fn row(&self, row: usize) -> Row {
        let value = |cell| match cell {
            Cell::Bool(x) => Value::Bool(x),
            Cell::Int(x) => Value::Int(x),
            Cell::Float(x) => Value::Float(x),
            Cell::Text(x) => Value::Text(String::from_utf8_lossy(x).into_owned()),
        };
        let columns = self.columns.iter().enumerate();
        columns.filter_map(|(i, c)| Some((c.name.clone(), value(self.cell(i, row)?)))).collect()
    }
}

/// Columns being made, row by row.
#[derive(Debug, Default)]
pub(crate) struct ColumnsBuilder {
    rows: usize,
    columns: Vec<Growing>,
}

#[derive(Debug)]
struct Growing {
    name: String,
    present: Vec<bool>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Text { offsets: Vec<u64>, bytes: Vec<u8> },
}

impl ColumnsBuilder {
    /// Appends a document's metadata, which `schema` was extended by.
    pub(crate) fn push(&mut self, schema: &Schema, row: &[(String, Value)]) {
        for (name, _) in row {
            // Unknown to the schema: null in every row so far.
            let Some(at) = schema.find(name) else { continue };
            if !self.columns.iter().any(|c| c.name == *name) {
                self.columns.push(Growing::new(name, schema.columns()[at].1, self.rows));
            }
        }
        for column in &mut self.columns {
            let value = row.iter().find(|(name, _)| *name == column.name).map_or(&Value::Null, |(_, v)| v);
            column.push(value);
        }
        self.rows += 1;
    }

    pub(crate) fn finish(self) -> Columns {
        let bitmap = |bits: Vec<bool>| {
            let members = bits.iter().enumerate().filter(|&(_, &bit)| bit).map(|(i, _)| i);
            Bitmap::of(bits.len(), members).expect("numbers below the length")
        };
        let finish = |c: Growing| Column {
            name: c.name,
            present: bitmap(c.present),
            data: match c.values {
                Values::Bool(values) => Data::Bool(bitmap(values)),
                Values::Int(values) => Data::Int(values.into()),
                Values::Float(values) => Data::Float(values.into()),
                Values::Text { offsets, bytes } => {
                    Data::Text { offsets: offsets.into(), bytes: bytes.into() }
                }
            },
        };
        Columns { rows: self.rows, columns: self.columns.into_iter().map(finish).collect() }
    }
}

impl Growing {
    /// A column that is null for the first `rows` documents.
    fn new(name: &str, column: ColumnType, rows: usize) -> Self {
        let values = match column {
            ColumnType::Bool => Values::Bool(vec![false; rows]),
            ColumnType::Int => Values::Int(vec![0; rows]),
            ColumnType::Float => Values::Float(vec![0.0; rows]),
            ColumnType::Text => Values::Text { offsets: vec![0; rows + 1], bytes: Vec::new() },
        };
        Self { name: name.to_owned(), present: vec![false; rows], values }
    }

    fn push(&mut self, value: &Value) {
        let column = match &self.values {
            Values::Bool(_) => ColumnType::Bool,
            Values::Int(_) => ColumnType::Int,
            Values::Float(_) => ColumnType::Float,
            Values::Text { .. } => ColumnType::Text,
        };
        let value = value.coerced(column).unwrap_or(Value::Null);
        self.present.push(value != Value::Null);
        match (&mut self.values, value) {
            (Values::Bool(values), Value::Bool(x)) => values.push(x),
            (Values::Int(values), Value::Int(x)) => values.push(x),
            (Values::Float(values), Value::Float(x)) => values.push(x),
            (Values::Text { offsets, bytes }, value) => {
                if let Value::Text(text) = value {
                    bytes.extend_from_slice(text.as_bytes());
                }
                offsets.push(bytes.len() as u64);
            }
            (Values::Bool(values), _) => values.push(false),
            (Values::Int(values), _) => values.push(0),
            (Values::Float(values), _) => values.push(0.0),
        }
    }
}

// --- in files -------------------------------------------------------------------------------------------------------

/// Section with the names and types of a segment's columns.
const DIRECTORY: Tag = *b"COLS";

/// Section of column `i`: `p` which documents have a value, `v` values, `t` bytes of texts.
fn tag(role: u8, i: usize) -> Tag {
    let digit = |x: usize| b"0123456789abcdef"[x];
    [role, digit(i / 16), digit(i % 16), b'.']
}

impl Columns {
    /// Sections of a segment's file.
    pub(crate) fn sections(&self) -> Vec<(Tag, Vec<u8>)> {
        if self.columns.is_empty() {
            return Vec::new();
        }
        let schema = |c: &Column| {
            let column = match c.data {
                Data::Bool(_) => ColumnType::Bool,
                Data::Int(_) => ColumnType::Int,
                Data::Float(_) => ColumnType::Float,
                Data::Text { .. } => ColumnType::Text,
            };
            (c.name.clone(), column)
        };
        let mut directory = wire::Writer::default();
        Schema(self.columns.iter().map(schema).collect()).write(&mut directory);
        let mut sections = vec![(DIRECTORY, directory.finish())];
        for (i, column) in self.columns.iter().enumerate() {
            sections.push((tag(b'p', i), bytemuck::cast_slice(column.present.words()).to_vec()));
            let values = match &column.data {
                Data::Bool(values) => bytemuck::cast_slice(values.words()).to_vec(),
                Data::Int(values) => bytemuck::cast_slice(values).to_vec(),
                Data::Float(values) => bytemuck::cast_slice(values).to_vec(),
                Data::Text { offsets, bytes } => {
                    sections.push((tag(b't', i), bytes.to_vec()));
                    bytemuck::cast_slice(offsets).to_vec()
                }
            };
            sections.push((tag(b'v', i), values));
        }
        sections
    }

    /// Reads them back, compared with their checksums.
    ///
    /// # Errors
    /// `ERR_CORRUPT`.
    pub(crate) fn read(file: &Container, rows: usize) -> Result<Self> {
        if !file.has(DIRECTORY) {
            return Ok(Self { rows, columns: Vec::new() });
        }
        let mut directory = wire::Reader::new(file.checked(DIRECTORY)?, file.what());
        let schema = Schema::read(&mut directory)?;
        let fail = |name: &str| directory.fail(format!("column {name:?} does not have a value per document"));
        let bitmap = |tag: Tag, name: &str| {
            let words: Buffer<u32> = file.checked_buffer(tag)?;
            Bitmap::from_words(words.to_vec(), rows).ok_or_else(|| fail(name))
        };
        let mut columns = Vec::with_capacity(schema.0.len());
        for (i, (name, column)) in schema.0.iter().enumerate() {
            let present = bitmap(tag(b'p', i), name)?;
            let values = tag(b'v', i);
            let (data, found) = match column {
                ColumnType::Bool => (Data::Bool(bitmap(values, name)?), rows),
                ColumnType::Int => {
                    let values = file.checked_buffer(values)?;
                    (Data::Int(values.clone()), values.len())
                }
                ColumnType::Float => {
                    let values = file.checked_buffer(values)?;
                    (Data::Float(values.clone()), values.len())
                }
                ColumnType::Text => {
                    let offsets: Buffer<u64> = file.checked_buffer(values)?;
                    let bytes: Buffer<u8> = file.checked_buffer(tag(b't', i))?;
                    let ascending = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
                    if !ascending || offsets.last() != Some(&(bytes.len() as u64)) {
                        return Err(fail(name));
                    }
                    let found = offsets.len() - 1;
                    (Data::Text { offsets, bytes }, found)
                }
            };
            if found != rows {
                return Err(fail(name));
            }
            columns.push(Column { name: name.clone(), present, data });
        }
        directory.finish()?;
        Ok(Self { rows, columns })
    }
}
