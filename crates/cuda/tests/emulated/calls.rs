//! Graphs, batches, memory of the caller's and conversion, on the emulator: `hardware` runs the same on a GPU.

use maxsim_core::{Backend, DataBuf, Forward, Op, Options, Tokens};
use maxsim_cuda::tuning::{Entry, ShapeClass, Table};
use maxsim_cuda::{CudaBackend, Path};

use crate::host;
use crate::{backend, folder, paths};

#[test]
fn graphs() {
    paths().into_iter().for_each(|path| host::graphs(&backend(path)));
}

#[test]
fn batches() {
    paths().into_iter().for_each(|path| host::batches(&backend(path)));
}

#[test]
fn interop() {
    paths().into_iter().for_each(|path| host::interop(&backend(path)));
}

#[test]
fn training() {
    paths().into_iter().for_each(|path| host::training(&backend(path)));
}

#[test]
fn foreign_winners() {
    host::foreign_winners(&backend(paths()[0]));
}

#[test]
fn wrong_memory() {
    host::wrong_memory(&backend(paths()[0]));
}

#[test]
fn conversion() {
    host::conversion(&backend(paths()[0]));
}

#[test]
fn out_of_memory() {
    host::out_of_memory(&backend(paths()[0]));
}

#[test]
fn shards() {
    let path = paths()[0];
    host::shards(&|| backend(path));
}

/// Tiles are measured one by one; the table that comes of it is used, said, and changes no bit.
#[test]
fn tuning() {
    let path = Path::Sm80;
    let make = |table| Ok(CudaBackend::emulated_with(path, &folder(), table));
    let (q, d) = ("bf16".to_owned(), "bf16".to_owned());
    let class = ShapeClass { q, d, dim: 16, rows: 64, argmax: false, scaled: false };
    let entry = CudaBackend::tune(&make, &class, 3, 10, 1).unwrap();
    let tiles: Vec<u32> = entry.microseconds.keys().copied().collect();
    assert_eq!(tiles, [32, 64]);
    assert!(tiles.contains(&entry.tile));
    let unknown = ShapeClass { q: "f8".into(), ..class.clone() };
    assert_eq!(CudaBackend::tune(&make, &unknown, 3, 10, 1).unwrap_err().code().as_str(), "ERR_VALUE");

    let numbers: Vec<f32> = (0..64 * 16).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let data = DataBuf::from_f32(&numbers, maxsim_core::DType::BF16);
    let tokens = || Tokens::padded(&data, &[2, 32, 16]).unwrap();
    let op = Op::Forward(Forward::maxsim(tokens(), tokens(), Options::default()));
    let run = |backend: &CudaBackend| {
        (backend.plan(&op).unwrap().to_string(), backend.submit(&op, &Default::default()).wait().unwrap())
    };
    let (usual, expected) = run(&backend(path));
    assert!(usual.contains("tile=64 query tokens"), "{usual}");
    {
        let tile = 32;
        let mut table = Table::of("emulator");
        table.entries.push(Entry { tile, ..entry.clone() });
        let (plan, scores) = run(&make(table).unwrap());
        assert!(
            plan.contains(&format!("tile={tile} query tokens")) && plan.contains("tuned=emulator"),
            "{plan}"
        );
        assert_eq!(scores, expected);
    }
}
