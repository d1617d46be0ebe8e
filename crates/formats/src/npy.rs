//! NumPy's `.npy`: a magic string, a Python dictionary as text, the elements.
//!
//! Source: NumPy enhancement proposal 1 and `numpy.lib.format`, versions 1.0, 2.0 and 3.0.

use std::io::ErrorKind;
use std::path::Path;

use maxsim_core::{Error, Result};

use crate::array::{Array, ArrayData, ElementType, element_count};
use crate::file;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Longest header read. NumPy itself refuses 10,000 bytes by default; a shape needs far fewer.
const MAX_HEADER: usize = 1 << 16;

/// Most axes read; NumPy allows 64.
const MAX_RANK: usize = 64;

/// Reads a `.npy` file. Column-major (Fortran) arrays come back row-major.
///
/// Types: `f8 f4 f2 i1 u1 i2 u2 i4 u4 i8 u8 b1`, little-endian, and `V2`, which is how NumPy saves the bfloat16 of
/// `ml_dtypes`.
///
/// # Errors
/// `ERR_IO`; `ERR_FORMAT` for anything but a whole `.npy` file; `ERR_DTYPE` for big-endian, structured, string, object and
/// complex elements; `ERR_VERSION` for a newer format; `ERR_LIMIT` for a shape that 64 bits cannot count.
pub fn read_npy(path: impl AsRef<Path>) -> Result<Array> {
    let path = path.as_ref();
    parse(&file::name(path), &file::open(path)?)
}

/// Reads the bytes of a `.npy` file; see [`read_npy`].
///
/// # Errors
/// As [`read_npy`], without `ERR_IO`.
pub fn from_bytes(bytes: &[u8]) -> Result<Array> {
    parse("npy", bytes)
}

/// Writes an array as a version 1.0 `.npy` file, row-major.
///
/// # Errors
/// `ERR_IO`, and `ERR_DTYPE` for fp8, which the format cannot name.
pub fn write_npy(path: impl AsRef<Path>, array: &Array) -> Result<()> {
    let path = path.as_ref();
    std::fs::write(path, to_bytes(array)?).map_err(|error| Error::io(file::name(path), error))
}

/// The bytes of a `.npy` file.
///
/// # Errors
/// `ERR_DTYPE` for fp8, which the format cannot name.
pub fn to_bytes(array: &Array) -> Result<Vec<u8>> {
    let mut bytes = header(array.element_type(), array.shape())?;
    bytes.extend(array.data().to_le_bytes());
    Ok(bytes)
}

/// What stands before the elements in a version 1.0 `.npy` file; the elements follow in row-major order, little-endian.
/// For files that are written piece by piece.
///
/// # Errors
/// `ERR_DTYPE` for fp8, which the format cannot name, `ERR_SHAPE` for thousands of axes.
pub fn header(element_type: ElementType, shape: &[usize]) -> Result<Vec<u8>> {
    let descr = match element_type {
        ElementType::F64 => "<f8",
        ElementType::F32 => "<f4",
        ElementType::F16 => "<f2",
        ElementType::BF16 => "<V2",
        ElementType::I8 => "|i1",
        ElementType::U8 => "|u1",
        ElementType::I16 => "<i2",
        ElementType::U16 => "<u2",
        ElementType::I32 => "<i4",
        ElementType::U32 => "<u4",
        ElementType::I64 => "<i8",
        ElementType::U64 => "<u8",
        ElementType::Bool => "|b1",
        ElementType::E4M3 => return Err(Error::dtype("array", "a type that .npy can name", "fp8")),
    };
    let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    // `(3, )` and `(2, 3, )` are tuples; `()` has no comma.
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
    // Data starts at a multiple of 64 bytes; the header ends in a newline.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(|_| {
        Error::shape("array", "a shape that a .npy header can hold", format!("{} axes", shape.len()))
    })?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(header.as_bytes());
    Ok(bytes)
}

/// A `.npy` file that is read a few rows at a time, for arrays larger than memory.
#[derive(Debug)]
pub struct NpyFile {
    name: String,
    parts: file::Parts,
    /// Where the elements start.
    start: usize,
    element_type: ElementType,
    shape: Vec<usize>,
}

impl NpyFile {
    /// Opens a row-major `.npy` file.
    ///
    /// # Errors
    /// As [`read_npy`]; `ERR_UNSUPPORTED` for a column-major array of several axes.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (name, (bytes, file)) = (file::name(path), file::open_both(path)?);
        let (header, element_type, data) = split(&name, &bytes)?;
        if header.fortran_order && header.shape.len() > 1 {
            return Err(Error::Unsupported {
                what: format!("{name}: reading a column-major array by rows"),
                hint: "save it in C order".into(),
            });
        }
        let start = bytes.len() - data.len();
        Ok(Self { name, start, element_type, shape: header.shape, parts: file::Parts::of(bytes, file) })
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// Rows `range` of the first axis.
    ///
    /// # Errors
    /// `ERR_FORMAT` if there are no such rows, which is what a file says that is shorter than others claim; `ERR_IO`.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Result<Array> {
        let count = self.shape.first().copied().unwrap_or(0);
        if range.start > range.end || range.end > count {
            let problem = format!("rows {}..{} of {count}", range.start, range.end);
            return Err(Error::format(&self.name, problem));
        }
        // The whole array was measured when the file was opened, so that this fits.
        let inner = self.shape.get(1..).unwrap_or_default();
        let row: usize = inner.iter().product::<usize>() * self.element_type.size();
        let read = self.parts.read(self.start + range.start * row, range.len() * row);
        let bytes = read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::format(&self.name, "it became shorter"),
            _ => Error::io(&self.name, error),
        })?;
        let shape = [&[range.len()], inner].concat();
        Array::new(shape, ArrayData::from_le_bytes(self.element_type, &bytes))
    }
}

fn parse(what: &str, bytes: &[u8]) -> Result<Array> {
    let (header, element_type, data) = split(what, bytes)?;
    let mut values = ArrayData::from_le_bytes(element_type, data);
    if header.fortran_order && header.shape.len() > 1 {
        values = values.transposed(&header.shape);
    }
    Array::new(header.shape, values)
}

/// Header, element type and elements of a file, as long as each other.
fn split<'a>(what: &str, bytes: &'a [u8]) -> Result<(Header, ElementType, &'a [u8])> {
    let bad = |problem: String| Error::format(what, problem);
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(bad("does not start with the .npy magic".into()));
    };
    let [major, minor, rest @ ..] = rest else {
        return Err(bad("ends within the version".into()));
    };
    let (length, rest) = match (major, rest) {
        (1, [a, b, rest @ ..]) => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        (2 | 3, [a, b, c, d, rest @ ..]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        (1..=3, _) => return Err(bad("ends within the header length".into())),
        _ => {
            return Err(Error::Version {
                what: what.into(),
                found: format!("{major}.{minor}"),
                supported: "3.0".into(),
            });
        }
    };
    if length > MAX_HEADER {
        return Err(bad(format!("a header of {length} bytes, more than {MAX_HEADER}")));
    }
    let Some((header, data)) = rest.split_at_checked(length) else {
        return Err(bad(format!("a header of {length} bytes, but {} bytes are left", rest.len())));
    };
    // Copied first: a mapped file that someone changes meanwhile must not become text that was checked before.
    let header = header.to_vec();
    let header = Header::parse(&header).map_err(|problem| bad(format!("header: {problem}")))?;
    let element_type = element_type(what, &header.descr)?;
    let elements = element_count(what, &header.shape)?;
    let needed = elements.checked_mul(element_type.size());
    if needed != Some(data.len()) {
        return Err(bad(format!(
            "shape {:?} of {element_type} needs {} bytes, {} are there",
            header.shape,
            needed.map_or("more than 2⁶⁴".into(), |n| n.to_string()),
            data.len()
        )));
    }
    Ok((header, element_type, data))
}

fn element_type(what: &str, descr: &str) -> Result<ElementType> {
    let unknown = || {
        Error::dtype(
            what.to_owned(),
            "little-endian f8, f4, f2, i1, u1, i2, u2, i4, u4, i8, u8, b1 or V2 (bfloat16)",
            format!("{descr:?}"),
        )
    };
    let (order, kind) = descr.split_at_checked(1).ok_or_else(unknown)?;
    let element_type = match kind {
        "f8" => ElementType::F64,
        "f4" => ElementType::F32,
        "f2" => ElementType::F16,
        "V2" => ElementType::BF16,
        "i1" => ElementType::I8,
        "u1" => ElementType::U8,
        "i2" => ElementType::I16,
        "u2" => ElementType::U16,
        "i4" => ElementType::I32,
        "u4" => ElementType::U32,
        "i8" => ElementType::I64,
        "u8" => ElementType::U64,
        "b1" => ElementType::Bool,
        _ => return Err(unknown()),
    };
    // `|` means that the order does not matter, which is only true of single bytes; a void has none either.
    match order {
        "<" => Ok(element_type),
        "|" if element_type.size() == 1 || kind == "V2" => Ok(element_type),
        _ => Err(unknown()),
    }
}

/// The three entries of the dictionary.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &[u8]) -> Result<Self, String> {
        let mut cursor = Cursor { text, at: 0 };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        cursor.expect(b'{')?;
        while !cursor.take(b'}') {
            let key = cursor.string()?;
            cursor.expect(b':')?;
            let repeated = match key.as_str() {
                "descr" => descr.replace(cursor.descr()?).is_some(),
                "fortran_order" => fortran_order.replace(cursor.boolean()?).is_some(),
                "shape" => shape.replace(cursor.shape()?).is_some(),
                _ => return Err(format!("unknown key {key:?}")),
            };
            if repeated {
                return Err(format!("key {key:?} twice"));
            }
            if !cursor.take(b',') {
                cursor.expect(b'}')?;
                break;
            }
        }
        cursor.end()?;
        Ok(Self {
            descr: descr.ok_or("no key \"descr\"")?,
            fortran_order: fortran_order.ok_or("no key \"fortran_order\"")?,
            shape: shape.ok_or("no key \"shape\"")?,
        })
    }
}

/// Reads the few Python literals that a header is made of.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(&format!("{:?}", byte as char))) }
    }

    fn unexpected(&mut self, expected: &str) -> String {
        match self.peek() {
            Some(byte) => format!("expected {expected}, got {:?} at byte {}", byte as char, self.at),
            None => format!("expected {expected}, got the end"),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = match self.peek() {
            Some(quote @ (b'\'' | b'"')) => quote,
            _ => return Err(self.unexpected("a string")),
        };
        let start = self.at + 1;
        let rest = self.text.get(start..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == quote).ok_or("a string without an end")?;
        let text = &rest[..length];
        if text.contains(&b'\\') {
            return Err("an escape in a string".into());
        }
        self.at = start + length + 1;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn descr(&mut self) -> Result<String, String> {
        if self.peek() == Some(b'[') {
            return Err("structured elements are not supported".into());
        }
        self.string()
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False"))
    }

    fn shape(&mut self) -> Result<Vec<usize>, String> {
        self.expect(b'(')?;
        let mut shape = Vec::new();
        while !self.take(b')') {
            if shape.len() == MAX_RANK {
                return Err(format!("more than {MAX_RANK} axes"));
            }
            shape.push(self.extent()?);
            if !self.take(b',') {
                if shape.len() == 1 {
                    // `(3)` is the number 3 and not a tuple.
                    return Err(self.unexpected("a tuple"));
                }
                self.expect(b')')?;
                break;
            }
        }
        Ok(shape)
    }

    fn extent(&mut self) -> Result<usize, String> {
        self.peek();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Err(self.unexpected("an extent"));
        }
        let value = rest[..digits]
            .iter()
            .try_fold(0usize, |n, &digit| n.checked_mul(10)?.checked_add(usize::from(digit - b'0')))
            .ok_or("an extent beyond 64 bits")?;
        self.at += digits;
        // Python 2 wrote long integers with an L.
        if self.text.get(self.at) == Some(&b'L') {
            self.at += 1;
        }
        Ok(value)
    }

    fn end(&mut self) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn code(bytes: &[u8]) -> &'static str {
        from_bytes(bytes).map_or_else(|error| error.code().as_str(), |_| "ok")
    }

    #[test]
    fn files_are_read_by_rows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.npy");
        let array = Array::new(vec![3, 2], vec![1i64, 2, 3, 4, 5, 6]).unwrap();
        write_npy(&path, &array).unwrap();
        let file = NpyFile::open(&path).unwrap();
        assert_eq!((file.shape(), file.element_type()), (&[3, 2][..], ElementType::I64));
        assert_eq!(file.rows(1..3).unwrap(), Array::new(vec![2, 2], vec![3i64, 4, 5, 6]).unwrap());
        assert_eq!(file.rows(3..3).unwrap().shape(), [0, 2]);
        assert!(file.rows(2..4).is_err());
        let shorter = std::fs::File::options().write(true).open(&path).unwrap();
        shorter.set_len(std::fs::metadata(&path).unwrap().len() - 1).unwrap();
        assert!(file.rows(0..2).is_ok());
        assert_eq!(
            file.rows(0..3).unwrap_err().to_string(),
            format!("{}: it became shorter", path.display())
        );
    }

    #[test]
    fn all_versions_are_read() {
        for version in 1..=3 {
            let header = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }\n";
            let array = from_bytes(&file(version, header, &[1, 0, 0, 0, 255, 255, 255, 255])).unwrap();
            assert_eq!(array, Array::new(vec![2], vec![1i32, -1]).unwrap());
        }
        assert_eq!(code(&file(4, "{}", &[])), "ERR_VERSION");
    }

    #[test]
    fn column_major_becomes_row_major() {
        // Column-major [2, 3] with elements 0, 3, 1, 4, 2, 5 is 0 1 2 / 3 4 5.
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}";
        let array = from_bytes(&file(1, header, &[0, 3, 1, 4, 2, 5])).unwrap();
        assert_eq!(array, Array::new(vec![2, 3], vec![0u8, 1, 2, 3, 4, 5]).unwrap());
        // Three axes: element (i, j, k) stands at i + 2j + 6k.
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4)}";
        let data: Vec<u8> = (0..24).collect();
        let array = from_bytes(&file(1, header, &data)).unwrap();
        let expected: Vec<u8> =
            (0..2).flat_map(|i| (0..3).flat_map(move |j| (0..4).map(move |k| i + 2 * j + 6 * k))).collect();
        assert_eq!(array.data(), &ArrayData::U8(expected));
        let header = "{'descr': '<f4', 'fortran_order': True, 'shape': (0, 3)}";
        assert_eq!(from_bytes(&file(1, header, &[])).unwrap().shape(), [0, 3]);
    }

    #[test]
    fn headers_of_all_spellings() {
        for (header, data, expected) in [
            (
                "{\"shape\":(),\"fortran_order\":False,\"descr\":'<f8'}",
                &[0u8; 8][..],
                Array::new(vec![], vec![0.0f64]),
            ),
            (
                "{'descr': '|b1', 'fortran_order': False, 'shape': (3L, )}",
                &[0, 1, 2],
                Array::new(vec![3], vec![false, true, true]),
            ),
            (
                "{'descr': '<V2', 'fortran_order': False, 'shape': (1,)}",
                &[0x80, 0x3f],
                Array::new(vec![1], vec![maxsim_core::bf16::from_f32(1.0)]),
            ),
        ] {
            assert_eq!(from_bytes(&file(1, header, data)).unwrap(), expected.unwrap(), "{header}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let header = |descr: &str, shape: &str| {
            format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")
        };
        for (descr, shape, expected) in [
            ("'>f4'", "(1,)", "ERR_DTYPE"),
            ("'|f4'", "(1,)", "ERR_DTYPE"),
            ("'=f4'", "(1,)", "ERR_DTYPE"),
            ("'<c8'", "(1,)", "ERR_DTYPE"),
            ("'|O'", "(1,)", "ERR_DTYPE"),
            ("'é4'", "(1,)", "ERR_DTYPE"),
            ("''", "(1,)", "ERR_DTYPE"),
            ("[('a', '<f4')]", "(1,)", "ERR_FORMAT"),
            ("'<f4'", "(2,)", "ERR_FORMAT"),
            ("'<f4'", "(1)", "ERR_FORMAT"),
            ("'<f4'", "(-1,)", "ERR_FORMAT"),
            ("'<f4'", "(1 1)", "ERR_FORMAT"),
            ("'<f4'", "(99999999999999999999,)", "ERR_FORMAT"),
            ("'<f4'", "(1152921504606846976,)", "ERR_FORMAT"),
            ("'<f8'", "(4611686018427387904,)", "ERR_FORMAT"),
            ("'<f4'", "(4294967296, 4294967296)", "ERR_LIMIT"),
        ] {
            assert_eq!(code(&file(1, &header(descr, shape), &[0; 4])), expected, "{descr} {shape}");
        }
        for text in [
            "",
            "{",
            "{}",
            "{'descr'",
            "{'descr': '<f4",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
        ] {
            assert_eq!(code(&file(1, text, &[0; 4])), "ERR_FORMAT", "{text}");
        }
        // A header length of 4 GiB in a file of 12 bytes.
        let mut bytes = MAGIC.to_vec();
        bytes.extend([2, 0, 255, 255, 255, 255]);
        assert_eq!(code(&bytes), "ERR_FORMAT");
        assert_eq!(code(b"PK\x03\x04"), "ERR_FORMAT");
    }
}
