//! What is written is read back, by this crate and by independent implementations; what is damaged is an error.

use std::collections::{BTreeMap, HashMap};

use maxsim_core::{E4M3, bf16, f16};
use maxsim_formats::{Array, ArrayData, ElementType, SafeTensors, npy, safetensors_to_bytes};
use npyz::WriterBuilder;
use proptest::prelude::*;

const TYPES: [ElementType; 14] = [
    ElementType::F64,
    ElementType::F32,
    ElementType::F16,
    ElementType::BF16,
    ElementType::E4M3,
    ElementType::I8,
    ElementType::U8,
    ElementType::I16,
    ElementType::U16,
    ElementType::I32,
    ElementType::U32,
    ElementType::I64,
    ElementType::U64,
    ElementType::Bool,
];

/// An array whose elements come from `seed`: any bits for integers, no NaN for floats (they would not compare equal).
fn array(element_type: ElementType, shape: Vec<usize>, seed: u64) -> Array {
    let count = shape.iter().product::<usize>() as u64;
    let words = (0..count).map(|i| {
        (seed ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(29)
    });
    let data: ArrayData = match element_type {
        ElementType::F64 => words.map(|w| w as i64 as f64).collect::<Vec<_>>().into(),
        ElementType::F32 => words.map(|w| w as i64 as f32).collect::<Vec<_>>().into(),
        ElementType::F16 => words.map(|w| f16::from_f32(w as i16 as f32)).collect::<Vec<_>>().into(),
        ElementType::BF16 => words.map(|w| bf16::from_f32(w as i16 as f32)).collect::<Vec<_>>().into(),
        ElementType::E4M3 => words.map(|w| E4M3(w as u8)).collect::<Vec<_>>().into(),
        ElementType::I8 => words.map(|w| w as i8).collect::<Vec<_>>().into(),
        ElementType::U8 => words.map(|w| w as u8).collect::<Vec<_>>().into(),
        ElementType::I16 => words.map(|w| w as i16).collect::<Vec<_>>().into(),
        ElementType::U16 => words.map(|w| w as u16).collect::<Vec<_>>().into(),
        ElementType::I32 => words.map(|w| w as i32).collect::<Vec<_>>().into(),
        ElementType::U32 => words.map(|w| w as u32).collect::<Vec<_>>().into(),
        ElementType::I64 => words.map(|w| w as i64).collect::<Vec<_>>().into(),
        ElementType::U64 => words.collect::<Vec<_>>().into(),
        _ => words.map(|w| w % 2 == 0).collect::<Vec<_>>().into(),
    };
    Array::new(shape, data).unwrap()
}

fn arrays() -> impl Strategy<Value = Array> {
    (0..TYPES.len(), proptest::collection::vec(0usize..5, 0..4), any::<u64>())
        .prop_map(|(kind, shape, seed)| array(TYPES[kind], shape, seed))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn npy_comes_back(array in arrays()) {
        match npy::to_bytes(&array) {
            Ok(bytes) => prop_assert_eq!(npy::from_bytes(&bytes).unwrap(), array),
            Err(error) => {
                prop_assert_eq!(error.code().as_str(), "ERR_DTYPE");
                prop_assert_eq!(array.element_type(), ElementType::E4M3);
            }
        }
    }

    #[test]
    fn safetensors_come_back(arrays in proptest::collection::vec(arrays(), 0..5), note in ".*") {
        let names: Vec<String> = (0..arrays.len()).map(|i| format!("t{i}/\"ü\"")).collect();
        let tensors: Vec<(&str, &Array)> = names.iter().map(String::as_str).zip(&arrays).collect();
        let metadata = BTreeMap::from([("note".to_owned(), note)]);
        let bytes = safetensors_to_bytes(&tensors, &metadata).unwrap();

        let file = SafeTensors::from_bytes(bytes.clone()).unwrap();
        prop_assert_eq!(file.metadata(), &metadata);
        prop_assert_eq!(file.names().len(), arrays.len());
        for (name, array) in &tensors {
            prop_assert_eq!(&file.tensor(name).unwrap(), *array);
        }

        let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        prop_assert_eq!(reference.len(), arrays.len());
        for (name, array) in &tensors {
            let theirs = reference.tensor(name).unwrap();
            prop_assert_eq!(theirs.shape(), array.shape());
            prop_assert_eq!(theirs.dtype().to_string(), file.view(name).unwrap().dtype());
            prop_assert_eq!(theirs.data(), file.view(name).unwrap().bytes());
        }
    }

    /// A prefix of a file is an error: nothing in either format can end early unnoticed.
    #[test]
    fn truncated_files_are_errors(array in arrays(), cut in any::<prop::sample::Index>()) {
        if let Ok(bytes) = npy::to_bytes(&array) {
            let error = npy::from_bytes(&bytes[..cut.index(bytes.len())]).unwrap_err();
            prop_assert_eq!(error.code().as_str(), "ERR_FORMAT");
        }
        let bytes = safetensors_to_bytes(&[("a", &array)], &BTreeMap::new()).unwrap();
        let error = SafeTensors::from_bytes(&bytes[..cut.index(bytes.len())]).unwrap_err();
        prop_assert_eq!(error.code().as_str(), "ERR_FORMAT");
    }

    /// Where both accept a damaged file, both read the same; where the reference refuses, so does this crate, except for
    /// types that only the reference's enumeration lacks.
    #[test]
    fn damaged_safetensors_are_judged_as_by_the_reference(
        array in arrays(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = safetensors_to_bytes(&[("a", &array)], &BTreeMap::new()).unwrap();
        for (position, byte) in edits {
            // The header is where the decisions are.
            let end = bytes.len().min(96);
            bytes[position.index(end)] = byte;
        }
        // The reference's end of data overflows for entries near 2⁶⁴; a few edited bytes cannot write such a number.
        let theirs = safetensors::SafeTensors::deserialize(&bytes);
        let ours = SafeTensors::from_bytes(bytes.clone());
        match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => {
                for name in theirs.names() {
                    prop_assert_eq!(theirs.tensor(name).unwrap().data(), ours.view(name).unwrap().bytes());
                }
            }
            (Err(_), Ok(ours)) => {
                let unknown = ours.names().any(|name| ours.tensor(name).is_err());
                prop_assert!(unknown, "accepted what the reference refuses");
            }
            // Stricter is fine: unknown keys in an entry, for example.
            (_, Err(error)) => {
                let code = error.code().as_str();
                prop_assert!(code == "ERR_FORMAT" || code == "ERR_LIMIT", "{}", code);
            }
        }
    }
}

#[test]
fn npyz_reads_what_is_written() {
    for shape in [vec![], vec![0], vec![5], vec![2, 3], vec![2, 0, 3]] {
        let array = array(ElementType::F32, shape.clone(), 3);
        let bytes = npy::to_bytes(&array).unwrap();
        assert_eq!(bytes.windows(1).position(|b| b == b"\n").map(|end| (end + 1) % 64), Some(0), "alignment");
        let file = npyz::NpyFile::new(&bytes[..]).unwrap();
        let theirs: Vec<u64> = shape.iter().map(|&extent| extent as u64).collect();
        assert_eq!(file.shape(), theirs);
        assert_eq!(ArrayData::from(file.into_vec::<f32>().unwrap()), *array.data());
    }
}

#[test]
fn what_npyz_writes_is_read() {
    for order in [npyz::Order::C, npyz::Order::Fortran] {
        let mut bytes = Vec::new();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .order(order)
            .shape(&[2, 3])
            .writer(&mut bytes)
            .begin_nd()
            .unwrap();
        // In the order of the file.
        let values = match order {
            npyz::Order::C => [0i64, 1, 2, 3, 4, 5],
            npyz::Order::Fortran => [0, 3, 1, 4, 2, 5],
        };
        writer.extend(values).unwrap();
        writer.finish().unwrap();
        let expected = Array::new(vec![2, 3], vec![0i64, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!(npy::from_bytes(&bytes).unwrap(), expected, "{order:?}");
    }
}

#[test]
fn what_the_reference_writes_is_read() {
    let values: Vec<u8> = [1.0f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &values).unwrap();
    let metadata = HashMap::from([("k".to_owned(), "v".to_owned())]);
    let bytes = safetensors::serialize([("x", view)], Some(metadata)).unwrap();
    let file = SafeTensors::from_bytes(bytes).unwrap();
    assert_eq!(file.tensor("x").unwrap(), Array::new(vec![2], vec![1.0f32, -2.0]).unwrap());
    assert_eq!(file.metadata()["k"], "v");
}

#[test]
fn files_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let array = array(ElementType::BF16, vec![3, 4], 9);

    let path = directory.path().join("a.npy");
    maxsim_formats::write_npy(&path, &array).unwrap();
    assert_eq!(maxsim_formats::read_npy(&path).unwrap(), array);

    let path = directory.path().join("a.safetensors");
    maxsim_formats::write_safetensors(&path, &[("a", &array)], &BTreeMap::new()).unwrap();
    assert_eq!(SafeTensors::open(&path).unwrap().tensor("a").unwrap(), array);

    let path = directory.path().join("missing");
    assert_eq!(maxsim_formats::read_npy(&path).unwrap_err().code().as_str(), "ERR_IO");
    assert_eq!(SafeTensors::open(&path).unwrap_err().code().as_str(), "ERR_IO");
    // Errors say which file.
    std::fs::write(&path, b"").unwrap();
    for error in [maxsim_formats::read_npy(&path).unwrap_err(), SafeTensors::open(&path).unwrap_err()] {
        assert_eq!(error.code().as_str(), "ERR_FORMAT");
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

#[test]
fn conversions_say_what_does_not_fit() {
    let code = |result: Result<(), maxsim_core::Error>| result.unwrap_err().code().as_str();
    let floats = || Array::new(vec![2], vec![1.5f64, -2.0]).unwrap();
    let integers = || Array::new(vec![2], vec![-1i64, 1 << 40]).unwrap();
    assert_eq!(floats().into_vectors("Q").unwrap(), maxsim_core::DataBuf::F32(vec![1.5, -2.0]));
    assert_eq!(code(integers().into_vectors("Q").map(drop)), "ERR_DTYPE");
    assert_eq!(code(floats().to_u32("lengths").map(drop)), "ERR_DTYPE");
    assert_eq!(code(integers().to_u32("lengths").map(drop)), "ERR_INDEX");
    assert_eq!(code(floats().to_mask("mask").map(drop)), "ERR_DTYPE");
    assert_eq!(integers().to_i64("ids").unwrap(), [-1, 1 << 40]);
    let large = Array::new(vec![1], vec![u64::MAX]).unwrap();
    assert_eq!(code(large.to_u32("lengths").map(drop)), "ERR_LIMIT");
    assert_eq!(code(large.to_i64("ids").map(drop)), "ERR_LIMIT");
    let bytes = Array::new(vec![1], vec![0x38u8]).unwrap();
    let fp8 = bytes.into_quantized("Q", maxsim_core::DType::E4M3).unwrap();
    assert_eq!(fp8.as_ref().to_f32(), [1.0]);
    assert_eq!(code(Array::new(vec![2], vec![1u8]).map(drop)), "ERR_SHAPE");
}
