//! Graphs, batches, memory of the caller's and conversion, on the emulator: `hardware` runs the same on a GPU.

use crate::host;
use crate::{backend, paths};

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
