//! The safetensors format: the length of a JSON header, the header, the elements.
//!
//! Source: the format description of <https://github.com/huggingface/safetensors>.

use std::collections::BTreeMap;
use std::path::Path;

use maxsim_core::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::array::{Array, ArrayData, ElementType, element_count};
use crate::file::{self, Bytes};

/// Longest header, as in the format description.
const MAX_HEADER: u64 = 100_000_000;

/// An entry of the header.
#[derive(Debug, Clone, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// A tensor as it lies in the file.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    what: String,
    dtype: &'a str,
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Type name as the file has it, e.g. `BF16`.
    pub fn dtype(&self) -> &'a str {
        self.dtype
    }

    /// Extents.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Little-endian elements, of any alignment.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The tensor with elements of their own type.
    ///
    /// # Errors
    /// `ERR_DTYPE` for a type without use here (complex numbers, four- and six-bit floats, other fp8 kinds).
    pub fn to_array(&self) -> Result<Array> {
        let element_type = element_type(self.dtype).ok_or_else(|| {
            Error::dtype(
                self.what.clone(),
                "F64, F32, F16, BF16, F8_E4M3, I8, U8, I16, U16, I32, U32, I64, U64 or BOOL",
                self.dtype,
            )
        })?;
        Array::new(self.shape.to_vec(), ArrayData::from_le_bytes(element_type, self.bytes))
    }
}

/// An open `.safetensors` file.
///
/// Opening checks that the entries cover the data without gap or overlap and that every size follows from its type and
/// shape; reading a tensor afterwards cannot go out of bounds.
#[derive(Debug)]
pub struct SafeTensors {
    what: String,
    bytes: Bytes,
    /// Where the elements begin in `bytes`.
    start: usize,
    tensors: BTreeMap<String, Located>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Located {
    dtype: String,
    shape: Vec<usize>,
    /// Within the data; validated.
    range: std::ops::Range<usize>,
}

impl SafeTensors {
    /// Opens a file; it is mapped into memory, not read.
    ///
    /// Nothing may change the file while it is open.
    ///
    /// # Errors
    /// `ERR_IO`; `ERR_FORMAT` for anything but a whole `.safetensors` file; `ERR_LIMIT` for a shape that 64 bits cannot
    /// count.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(file::name(path), file::open(path)?)
    }

    /// The bytes of a file; see [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open), without `ERR_IO`.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        Self::parse("safetensors".into(), Bytes::Owned(bytes.into()))
    }

    fn parse(what: String, bytes: Bytes) -> Result<Self> {
        let bad = |problem: String| Error::format(&what, problem);
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(bad("ends within the header length".into()));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER {
            return Err(bad(format!("a header of {length} bytes, more than {MAX_HEADER}")));
        }
        // Fits: at most MAX_HEADER.
        let Some((header, data)) = rest.split_at_checked(length as usize) else {
            return Err(bad(format!("a header of {length} bytes, but {} bytes are left", rest.len())));
        };
        // Copied first: a mapped file that someone changes meanwhile must not become text that was checked before.
        let header = header.to_vec();
        let header: BTreeMap<String, Value> =
            serde_json::from_slice(&header).map_err(|error| bad(format!("header: {error}")))?;
        let mut metadata = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        for (name, value) in header {
            if name == "__metadata__" {
                metadata =
                    serde_json::from_value(value).map_err(|error| bad(format!("__metadata__: {error}")))?;
                continue;
            }
            let entry: Entry =
                serde_json::from_value(value).map_err(|error| bad(format!("tensor {name:?}: {error}")))?;
            let located = locate(&what, &name, entry, data.len())?;
            tensors.insert(name, located);
        }
        check_cover(&tensors, data.len()).map_err(bad)?;
        let start = 8 + length as usize;
        Ok(Self { what, bytes, start, tensors, metadata })
    }

    /// Names of the tensors, in alphabetical order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor as it lies in the file, without a copy.
    ///
    /// # Errors
    /// `ERR_FORMAT` if there is none of this name.
    pub fn view(&self, name: &str) -> Result<TensorView<'_>> {
        let located =
            self.tensors.get(name).ok_or_else(|| Error::format(&self.what, format!("no tensor {name:?}")))?;
        let (first, last) = (self.start + located.range.start, self.start + located.range.end);
        Ok(TensorView {
            what: format!("{}: {name}", self.what),
            dtype: &located.dtype,
            shape: &located.shape,
            bytes: &self.bytes[first..last],
        })
    }

    /// The tensor, copied out of the file.
    ///
    /// # Errors
    /// `ERR_FORMAT` if there is none of this name, `ERR_DTYPE` for a type without use here.
    pub fn tensor(&self, name: &str) -> Result<Array> {
        self.view(name)?.to_array()
    }

    /// The file's own key–value pairs.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

fn element_type(dtype: &str) -> Option<ElementType> {
    Some(match dtype {
        "F64" => ElementType::F64,
        "F32" => ElementType::F32,
        "F16" => ElementType::F16,
        "BF16" => ElementType::BF16,
        "F8_E4M3" => ElementType::E4M3,
        "I8" => ElementType::I8,
        "U8" => ElementType::U8,
        "I16" => ElementType::I16,
        "U16" => ElementType::U16,
        "I32" => ElementType::I32,
        "U32" => ElementType::U32,
        "I64" => ElementType::I64,
        "U64" => ElementType::U64,
        "BOOL" => ElementType::Bool,
        _ => return None,
    })
}

fn dtype_name(element_type: ElementType) -> &'static str {
    match element_type {
        ElementType::F64 => "F64",
        ElementType::F32 => "F32",
        ElementType::F16 => "F16",
        ElementType::BF16 => "BF16",
        ElementType::E4M3 => "F8_E4M3",
        ElementType::I8 => "I8",
        ElementType::U8 => "U8",
        ElementType::I16 => "I16",
        ElementType::U16 => "U16",
        ElementType::I32 => "I32",
        ElementType::U32 => "U32",
        ElementType::I64 => "I64",
        ElementType::U64 => "U64",
        ElementType::Bool => "BOOL",
    }
}

/// Checks one entry against the `available` bytes.
fn locate(what: &str, name: &str, entry: Entry, available: usize) -> Result<Located> {
    let bad = |problem: String| Error::format(what, format!("tensor {name:?}: {problem}"));
    let (first, last) = entry.data_offsets;
    if first > last || last > available as u64 {
        return Err(bad(format!("bytes {first}..{last} of {available}")));
    }
    let shape = entry.shape.iter().map(|&extent| usize::try_from(extent).ok()).collect::<Option<Vec<_>>>();
    let shape = shape.ok_or_else(|| bad(format!("shape {:?}", entry.shape)))?;
    let elements = element_count(&format!("{what}: {name}"), &shape)?;
    // The size of a type unknown here cannot be checked; its bytes are only ever handed out as they are.
    if let Some(element_type) = element_type(&entry.dtype)
        && elements.checked_mul(element_type.size()) != usize::try_from(last - first).ok()
    {
        return Err(bad(format!("{} bytes for shape {shape:?} of {}", last - first, entry.dtype)));
    }
    // Both fit: at most `available`.
    Ok(Located { dtype: entry.dtype, shape, range: first as usize..last as usize })
}

/// The format forbids gaps, overlaps and a rest: each would be a place to hide something.
fn check_cover(tensors: &BTreeMap<String, Located>, available: usize) -> Result<(), String> {
    let mut ranges: Vec<_> = tensors.iter().map(|(name, t)| (t.range.start, t.range.end, name)).collect();
    ranges.sort_unstable();
    let mut end = 0;
    for (first, last, name) in ranges {
        if first != end {
            return Err(format!("tensor {name:?} begins at {first}, the one before ends at {end}"));
        }
        end = last;
    }
    if end != available {
        return Err(format!("tensors end at {end} of {available} bytes"));
    }
    Ok(())
}

/// The bytes of a `.safetensors` file with these tensors and key–value pairs.
///
/// # Errors
/// `ERR_VALUE` for a name that occurs twice or is `__metadata__`, `ERR_LIMIT` for a header beyond 100 MB.
pub fn safetensors_to_bytes(
    tensors: &[(&str, &Array)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    // Widest elements first: then every tensor begins at a multiple of its element size.
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(tensors[i].1.element_type().size()));
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut end = 0;
    for &i in &order {
        let (name, array) = tensors[i];
        let first = end;
        end += array.len() * array.element_type().size();
        let entry = serde_json::json!({
            "dtype": dtype_name(array.element_type()),
            "shape": array.shape(),
            "data_offsets": [first, end],
        });
        if name == "__metadata__" || header.insert(name.into(), entry).is_some() {
            return Err(Error::value(
                "tensors",
                "different names, none \"__metadata__\"",
                format!("{name:?}"),
            ));
        }
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = header.len() as u64;
    if length > MAX_HEADER {
        return Err(Error::Limit {
            argument: "tensors".into(),
            limit: format!("a header of {MAX_HEADER} bytes"),
            got: format!("{length} bytes"),
        });
    }
    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend(length.to_le_bytes());
    bytes.extend(header);
    for &i in &order {
        bytes.extend(tensors[i].1.data().to_le_bytes());
    }
    Ok(bytes)
}

/// Writes a `.safetensors` file.
///
/// # Errors
/// `ERR_IO`, and as [`safetensors_to_bytes`].
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[(&str, &Array)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    std::fs::write(path, safetensors_to_bytes(tensors, metadata)?)
        .map_err(|error| Error::io(file::name(path), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn code(bytes: Vec<u8>) -> &'static str {
        SafeTensors::from_bytes(bytes).map_or_else(|error| error.code().as_str(), |_| "ok")
    }

    #[test]
    fn headers_are_not_believed() {
        for (header, data, expected) in [
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4, "ok"),
            ("{}", 0, "ok"),
            ("", 0, "ERR_FORMAT"),
            ("[]", 0, "ERR_FORMAT"),
            ("{}", 1, "ERR_FORMAT"),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 5, "ERR_FORMAT"),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}"#, 5, "ERR_FORMAT"),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4, "ERR_FORMAT"),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4, "ERR_FORMAT"),
            (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, "ERR_FORMAT"),
            (r#"{"a":{"dtype":"F32","data_offsets":[0,4]}}"#, 4, "ERR_FORMAT"),
            (r#"{"__metadata__":{"a":1}}"#, 0, "ERR_FORMAT"),
            // Two tensors over the same bytes, and a gap between two.
            (
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
                4,
                "ERR_FORMAT",
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#,
                3,
                "ERR_FORMAT",
            ),
            // 2⁶⁴ − 1 bytes; 2⁶⁰ elements; a product beyond 64 bits.
            (
                r#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#,
                4,
                "ERR_FORMAT",
            ),
            (r#"{"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}"#, 4, "ERR_FORMAT"),
            (r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#, 4, "ERR_LIMIT"),
        ] {
            assert_eq!(code(file(header, &vec![0; data])), expected, "{header}");
        }
        assert_eq!(code(u64::MAX.to_le_bytes().to_vec()), "ERR_FORMAT");
        assert_eq!(code(1000u64.to_le_bytes().to_vec()), "ERR_FORMAT");
        assert_eq!(code(vec![1, 0, 0]), "ERR_FORMAT");
        // Nesting deeper than any stack.
        assert_eq!(code(file(&"[".repeat(1 << 20), &[])), "ERR_FORMAT");
    }

    #[test]
    fn a_type_without_use_does_not_spoil_the_others() {
        let header = r#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}}"#;
        let file = SafeTensors::from_bytes(file(header, &[7; 9])).unwrap();
        assert_eq!(file.tensor("a").unwrap_err().code().as_str(), "ERR_DTYPE");
        assert_eq!(file.view("a").unwrap().bytes(), [7; 8]);
        assert_eq!(file.tensor("b").unwrap(), Array::new(vec![1], vec![7u8]).unwrap());
        assert_eq!(file.tensor("c").unwrap_err().code().as_str(), "ERR_FORMAT");
    }

    #[test]
    fn names_must_differ() {
        let a = Array::new(vec![1], vec![1u8]).unwrap();
        for names in [["a", "a"], ["a", "__metadata__"]] {
            let tensors = names.map(|name| (name, &a));
            let error = safetensors_to_bytes(&tensors, &BTreeMap::new()).unwrap_err();
            assert_eq!(error.code().as_str(), "ERR_VALUE");
        }
    }
}
