//! A directory of which one file holds any bytes is an index or an error; what is read can be searched and written.
//!
//! The first byte chooses the file, the rest is what stands in it. The other files are those of a small good directory.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use maxsim::plaid::exchange::{self, Directory};
use maxsim::plaid::{IndexCodec, Sample, Searched, Segment, TrainOptions, train};
use maxsim::{Engine, PlaidOptions, TensorRef, Tokens};

const DIM: usize = 8;

struct Good {
    engine: Engine,
    directory: tempfile::TempDir,
    files: Vec<String>,
}

fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let engine = maxsim::EngineBuilder::new().threads(1).build().expect("a CPU");
        let data: Vec<f32> = (0..40 * DIM).map(|i| ((i * i) as f32).sin()).collect();
        let x = TensorRef::new(&data, &[40, DIM]).expect("its shape");
        let mut sample = Sample::new(DIM, 40, 0).expect("a sample");
        sample.add(&x).expect("finite");
        let options = TrainOptions { centroids: Some(4), ..TrainOptions::default() };
        let codec: IndexCodec = train(&engine, &sample, &options, &mut |_, _| ()).expect("trained");
        let segment = codec.segment(vec![0, 10, 10, 40], codec.encode(&engine, &x).expect("encoded"));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("good");
        exchange::write(&path, &codec, &[&segment.expect("a segment")], None).expect("written");
        let mut files: Vec<String> = fs::read_dir(&path)
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        Good { engine, directory, files }
    })
}

fn read(path: &Path) -> maxsim::Result<(IndexCodec, Vec<Segment>)> {
    let directory = Directory::open(path)?;
    let _ = directory.verify();
    let segments = directory.segments(1 << 16).collect::<maxsim::Result<_>>()?;
    Ok((directory.codec().clone(), segments))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, contents)) = bytes.split_first() else { return };
    let Good { engine, directory, files } = good();
    let (from, path) = (directory.path().join("good"), directory.path().join("bad"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("a directory");
    for name in files {
        fs::copy(from.join(name), path.join(name)).expect("copied");
    }
    fs::write(path.join(&files[usize::from(choice) % files.len()]), contents).expect("written");
    let Ok((codec, segments)) = read(&path) else { return };
    let segments: Vec<&Segment> = segments.iter().collect();
    let query = vec![0.5f32; 2 * codec.dim()];
    let q = Tokens::padded(&query, &[2, codec.dim()]).expect("its shape");
    Searched::all(&codec, &segments).search(engine, q, PlaidOptions::top_k(3)).expect("searched");
});
