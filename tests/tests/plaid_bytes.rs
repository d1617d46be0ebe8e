//! Residual bytes as fast-plaid writes them: the slices in `golden/plaid`, and whole indexes where `MAXSIM_FIXTURES` names a
//! directory that has them under `plaid`.

use std::path::{Path, PathBuf};

use maxsim::{Codec, DataBuf, Residual, ResidualLayout, Tensor, TensorRef, decode_residual};
use maxsim_formats::read_npy;
use maxsim_tests::cpu_devices as devices;

/// What an index stores of its documents, and the documents.
struct Index {
    name: String,
    nbits: u32,
    dim: usize,
    centroids: Tensor,
    cutoffs: Vec<f32>,
    weights: Vec<f32>,
    offsets: Vec<u32>,
    codes: Vec<u32>,
    residuals: Vec<u8>,
    /// What was indexed.
    vectors: Vec<f32>,
}

impl Index {
    fn read(directory: &Path) -> Self {
        let array = |name: &str| {
            let path = directory.join(name);
            read_npy(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let doclens: Vec<u32> = {
            let text = std::fs::read_to_string(directory.join("doclens.0.json")).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let mut offsets = vec![0];
        offsets.extend(doclens.iter().scan(0, |end, &len| {
            *end += len;
            Some(*end)
        }));
        let tokens = offsets[doclens.len()] as usize;
        let centroids = array("centroids.npy");
        let shape = centroids.shape().to_vec();
        let weights = array("bucket_weights.npy").to_f32("bucket_weights").unwrap();
        let bytes = array("merged_residuals.npy");
        let width = bytes.shape()[1];
        // Rows of zeros may follow the last document.
        let mut codes = array("merged_codes.npy").to_u32("codes").unwrap();
        assert!(codes.len() == bytes.shape()[0] && codes.len() >= tokens);
        codes.truncate(tokens);
        let maxsim_formats::ArrayData::U8(mut residuals) = bytes.into_parts().1 else {
            panic!("residuals that are not bytes")
        };
        residuals.truncate(tokens * width);
        let vectors = array("docs_f16.npy");
        assert_eq!(vectors.shape(), [tokens, shape[1]]);
        let nbits = weights.len().ilog2();
        assert_eq!(width, shape[1] * nbits as usize / 8);
        Self {
            name: directory.file_name().unwrap().to_string_lossy().into_owned(),
            nbits,
            dim: shape[1],
            centroids: Tensor::new(centroids.into_vectors("centroids").unwrap(), shape).unwrap(),
            cutoffs: array("bucket_cutoffs.npy").to_f32("bucket_cutoffs").unwrap(),
            weights,
            offsets,
            codes,
            residuals,
            vectors: vectors.to_f32("docs").unwrap(),
        }
    }

    fn codec(&self, layout: ResidualLayout) -> Codec<'_> {
        let centroids = TensorRef::new(self.centroids.data(), self.centroids.shape()).unwrap();
        Codec::new(centroids, &self.weights[..], self.nbits, layout).unwrap()
    }

    /// All tokens, decoded and normalised.
    fn decode(&self, layout: ResidualLayout) -> Vec<f32> {
        let documents =
            Residual::packed(self.codec(layout), &self.codes, &self.residuals, &self.offsets[..]).unwrap();
        let DataBuf::F32(decoded) = decode_residual(&documents, true).into_data() else {
            panic!("decoded to another type than f32")
        };
        decoded
    }

    /// Mean cosine of the decoded tokens and what was indexed.
    fn cosine(&self, layout: ResidualLayout) -> f64 {
        let decoded = self.decode(layout);
        assert_eq!(decoded.len(), self.vectors.len());
        let pairs = decoded.chunks(self.dim).zip(self.vectors.chunks(self.dim));
        let cosines = pairs.map(|(a, b)| {
            assert!((dot(a, a) - 1.0).abs() < 1e-5, "{}: decoded to squared norm {}", self.name, dot(a, a));
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        });
        cosines.sum::<f64>() / self.codes.len() as f64
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The indexes below `directory`; there must be one of 2 and one of 4 bits.
fn indexes(directory: &Path) -> Vec<Index> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.is_dir() && path.file_name().unwrap().to_string_lossy().starts_with("fastplaid_")
    });
    paths.sort();
    let indexes: Vec<Index> = paths.iter().map(|path| Index::read(path)).collect();
    assert!(indexes.iter().any(|i| i.nbits == 2) && indexes.iter().any(|i| i.nbits == 4));
    indexes
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/plaid")
}

/// Mean cosines that 2 and 4 bits must reach. The whole indexes have 0.9484 and 0.9918.
const WHOLE: [f64; 2] = [0.948, 0.991];
/// The same of a slice: a mean over 300 tokens is off by that much more.
const SLICE: [f64; 2] = [0.946, 0.990];

fn decode_all(directory: &Path, least: [f64; 2]) {
    for index in indexes(directory) {
        let right = index.cosine(ResidualLayout::Plaid);
        let wrong = index.cosine(ResidualLayout::Lik);
        println!("{}: cosine {right:.4}, in the other bit order {wrong:.4}", index.name);
        let least = match index.nbits {
            2 => least[0],
            4 => least[1],
            other => panic!("{}: no threshold for {other} bits", index.name),
        };
        assert!(right >= least, "{}: cosine {right}", index.name);
        assert!(wrong < 0.7, "{}: the wrong bit order gives cosine {wrong}", index.name);
    }
}

/// Encodes the documents again with the index's own tables. fast-plaid computes in f16, so a token near two centroids may get
/// the other one, and a residual near a cutoff the other bucket; everything else is the same bytes.
fn encode_all(directory: &Path) {
    for index in indexes(directory) {
        let shape = [index.codes.len(), index.dim];
        let x = TensorRef::new(&index.vectors, &shape).unwrap();
        for device in devices() {
            let codec = index.codec(ResidualLayout::Plaid);
            let got = device.engine.quantize_residual(&x, &index.cutoffs, &codec).unwrap();
            let same: Vec<usize> =
                (0..index.codes.len()).filter(|&t| got.codes[t] == index.codes[t]).collect();
            let codes = same.len() as f64 / index.codes.len() as f64;
            let equal = |&t: &usize| {
                let buckets = |bytes| buckets(bytes, t, &codec);
                buckets(&got.residuals).zip(buckets(&index.residuals)).filter(|(a, b)| a == b).count()
            };
            let buckets: usize = same.iter().map(equal).sum();
            let buckets = buckets as f64 / (same.len() * index.dim) as f64;
            println!("{} {}: codes {codes:.4}, buckets {buckets:.4} the same", device.name, index.name);
            assert!(codes >= 0.999, "{} {}: {codes} of the codes", device.name, index.name);
            assert!(buckets >= 0.999, "{} {}: {buckets} of the buckets", device.name, index.name);
        }
    }
}

/// Buckets of token `t`.
fn buckets<'a>(residuals: &'a [u8], t: usize, codec: &'a Codec<'_>) -> impl Iterator<Item = u8> + 'a {
    let (width, per_byte) = (codec.residual_bytes(), 8 / codec.nbits() as usize);
    (0..codec.dim())
        .map(move |f| codec.layout().bucket(residuals[t * width + f / per_byte], f % per_byte, codec.nbits()))
}

/// The whole indexes' directory, or a skip that says why.
fn whole() -> Option<PathBuf> {
    let Some(directory) = std::env::var_os("MAXSIM_FIXTURES") else {
        println!("1 skipped: MAXSIM_FIXTURES names no directory of whole fixture files");
        return None;
    };
    let directory = Path::new(&directory).join("plaid");
    if !directory.is_dir() {
        println!("1 skipped: {} is no directory", directory.display());
        return None;
    }
    Some(directory)
}

#[test]
fn slices_decode_to_what_was_indexed() {
    decode_all(&golden(), SLICE);
}

#[test]
fn slices_encode_to_the_same_bytes() {
    encode_all(&golden());
}

#[test]
fn whole_indexes_decode_to_what_was_indexed() {
    if let Some(directory) = whole() {
        decode_all(&directory, WHOLE);
    }
}

#[test]
fn whole_indexes_encode_to_the_same_bytes() {
    if let Some(directory) = whole() {
        encode_all(&directory);
    }
}

#[test]
fn slices_are_small() {
    let sizes = std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path());
    let files = sizes.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap());
    let size: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(0 < size && size <= 300_000, "{size} bytes are too many to keep in the repository");
}
