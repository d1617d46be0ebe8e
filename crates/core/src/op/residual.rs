//! PLAID / ColBERTv2 documents: a centroid per token plus a residual of 1, 2, 4 or 8 bits per dimension.
//!
//! Santhanam et al., *ColBERTv2* (2022) and *PLAID* (2022). Token = `centroids[code] + bucket_weights[bucket]`.

use std::borrow::Cow;
use std::fmt;

use crate::dtype::{DType, DataBuf, DataRef};
use crate::error::{Error, Result};
use crate::ints::Integers;
use crate::sequences::{Axes, Sequences};
use crate::tensor::{Tensor, TensorRef};

/// Order of the bits in packed residuals. There is no default: reading one order as the other gives vectors that look
/// plausible and are wrong (cosine about 0.55 to what was encoded).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResidualLayout {
    /// What ColBERTv2, PyLate, fast-plaid and next-plaid store: each field's bits least-significant first, packed into
    /// bytes most-significant bit first.
    Plaid,
    /// What late-interaction-kernels reads: field `j` of a byte at bits `j·nbits`. Every byte of `Plaid`, bits reversed.
    Lik,
}

impl std::str::FromStr for ResidualLayout {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "plaid" => Ok(Self::Plaid),
            "lik" => Ok(Self::Lik),
            other => Err(Error::value("layout", "one of plaid, lik", format!("{other:?}"))),
        }
    }
}

impl ResidualLayout {
    /// Bucket of field `field` of `byte`.
    pub fn bucket(self, byte: u8, field: usize, nbits: u32) -> u8 {
        let byte = if self == Self::Plaid { byte.reverse_bits() } else { byte };
        ((u32::from(byte) >> (field as u32 * nbits)) & ((1 << nbits) - 1)) as u8
    }

    /// Byte made of the given buckets, first field first.
    pub fn byte(self, buckets: impl IntoIterator<Item = u8>, nbits: u32) -> u8 {
        let natural = buckets
            .into_iter()
            .enumerate()
            .fold(0u32, |byte, (j, b)| byte | (u32::from(b) << (j as u32 * nbits)));
        if self == Self::Plaid { (natural as u8).reverse_bits() } else { natural as u8 }
    }
}

/// Centroids and buckets.
#[derive(Clone)]
pub struct Codec<'a> {
    centroids: TensorRef<'a>,
    bucket_weights: Cow<'a, [f32]>,
    nbits: u32,
    layout: ResidualLayout,
}

impl<'a> Codec<'a> {
    /// `centroids [C, d]` (f32, f16 or bf16) and `bucket_weights [2^nbits]` in natural bucket order.
    ///
    /// # Errors
    /// `ERR_VALUE` for `nbits` other than 1, 2, 4, 8; `ERR_SHAPE` for other shapes; `ERR_DTYPE` for quantised centroids.
    pub fn new(
        centroids: TensorRef<'a>,
        bucket_weights: impl Into<Cow<'a, [f32]>>,
        nbits: u32,
        layout: ResidualLayout,
    ) -> Result<Self> {
        let bucket_weights = bucket_weights.into();
        if !matches!(nbits, 1 | 2 | 4 | 8) {
            return Err(Error::value("nbits", "one of 1, 2, 4, 8", nbits.to_string()));
        }
        if centroids.shape().len() != 2 || centroids.shape()[1] == 0 {
            return Err(Error::shape("centroids", "rank 2 [C, d]", format!("{:?}", centroids.shape())));
        }
        if centroids.dtype().is_quantized() {
            return Err(Error::dtype("centroids", "f32, f16 or bf16", centroids.dtype().name()));
        }
        if bucket_weights.len() != 1 << nbits {
            return Err(Error::shape(
                "bucket_weights",
                format!("[{}] for nbits = {nbits}", 1 << nbits),
                format!("[{}]", bucket_weights.len()),
            ));
        }
        Ok(Self { centroids, bucket_weights, nbits, layout })
    }

    /// Number of centroids.
    pub fn count(&self) -> usize {
        self.centroids.shape()[0]
    }

    /// Embedding dimension.
    pub fn dim(&self) -> usize {
        self.centroids.shape()[1]
    }

    /// Bits per dimension.
    pub fn nbits(&self) -> u32 {
        self.nbits
    }

    /// Order of the bits.
    pub fn layout(&self) -> ResidualLayout {
        self.layout
    }

    /// Centroids `[C, d]`.
    pub fn centroids(&self) -> &TensorRef<'a> {
        &self.centroids
    }

    /// Bucket weights.
    pub fn bucket_weights(&self) -> &[f32] {
        &self.bucket_weights
    }

    /// Bytes of a token's residual.
    pub fn residual_bytes(&self) -> usize {
        (self.dim() * self.nbits as usize).div_ceil(8)
    }

    /// `centroids[code] + bucket_weights[bucket]` into `out` (`d` values). Panics if `code` or `residual` do not fit.
    pub fn decode(&self, code: usize, residual: &[u8], out: &mut [f32]) {
        let (dim, per_byte) = (self.dim(), 8 / self.nbits as usize);
        assert!(residual.len() == self.residual_bytes() && out.len() == dim);
        for (f, x) in out.iter_mut().enumerate() {
            let bucket = self.layout.bucket(residual[f / per_byte], f % per_byte, self.nbits);
            *x = self.centroids.data().get(code * dim + f) + self.bucket_weights[usize::from(bucket)];
        }
    }
}

/// Documents as codes and packed residuals.
#[derive(Clone)]
pub struct Residual<'a> {
    codec: Codec<'a>,
    codes: Cow<'a, [u32]>,
    residuals: &'a [u8],
    sequences: Sequences<'a>,
    inv_norms: Option<DataRef<'a>>,
}

impl<'a> Residual<'a> {
    /// Padded documents: `codes [Nd, L]`, `residuals [Nd, L, ⌈d·nbits/8⌉]`, `doc_lengths [Nd]`.
    ///
    /// # Errors
    /// `ERR_SHAPE` for other sizes, `ERR_INDEX` for a code that is no centroid (within lengths) or a length beyond `L`.
    pub fn padded(
        codec: Codec<'a>,
        codes: impl Integers<'a>,
        residuals: &'a [u8],
        shape: [usize; 2],
        doc_lengths: impl Integers<'a>,
    ) -> Result<Self> {
        let sequences =
            Sequences::padded(Axes::Flat(shape[0]), shape[1])?.with_lengths(doc_lengths).map_err(doc)?;
        Self::new(codec, codes, residuals, sequences)
    }

    /// Packed documents: `codes [T]`, `residuals [T, ⌈d·nbits/8⌉]`, `cu_seqlens_d [Nd + 1]`.
    ///
    /// # Errors
    /// `ERR_SHAPE` for other sizes, `ERR_INDEX` for a code that is no centroid or bad offsets.
    pub fn packed(
        codec: Codec<'a>,
        codes: impl Integers<'a>,
        residuals: &'a [u8],
        cu_seqlens_d: impl Integers<'a>,
    ) -> Result<Self> {
        let codes = codes.into_u32("codes")?;
        let sequences = Sequences::packed(cu_seqlens_d, codes.len()).map_err(doc)?;
        Self::new(codec, codes, residuals, sequences)
    }

    fn new(
        codec: Codec<'a>,
        codes: impl Integers<'a>,
        residuals: &'a [u8],
        sequences: Sequences<'a>,
    ) -> Result<Self> {
        let codes = codes.into_u32("codes")?;
        if codes.len() != sequences.slots() {
            return Err(Error::shape(
                "codes",
                format!("{} entries (shape {:?})", sequences.slots(), sequences.shape()),
                format!("{} entries", codes.len()),
            ));
        }
        let width = codec.residual_bytes();
        if residuals.len() != sequences.slots() * width {
            return Err(Error::shape(
                "residuals",
                format!(
                    "{} bytes ({} slots of ⌈d·nbits/8⌉ = {width})",
                    sequences.slots() * width,
                    sequences.slots()
                ),
                format!("{} bytes", residuals.len()),
            ));
        }
        check_codes(&codes, &sequences, codec.count())?;
        Ok(Self { codec, codes, residuals, sequences, inv_norms: None })
    }

    /// Packed documents whose parts were checked before.
    pub(crate) fn checked(
        codec: Codec<'a>,
        codes: &'a [u32],
        residuals: &'a [u8],
        sequences: Sequences<'a>,
        inv_norms: impl Into<DataRef<'a>>,
    ) -> Self {
        Self { codec, codes: Cow::Borrowed(codes), residuals, sequences, inv_norms: Some(inv_norms.into()) }
    }

    /// Stored inverse norms of the decoded tokens, one per slot (f32 or f16); used where tokens are normalised.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `inv_norms`) on another number, `ERR_DTYPE` on another type.
    pub fn with_inv_norms(mut self, inv_norms: impl Into<DataRef<'a>>) -> Result<Self> {
        let inv_norms = inv_norms.into();
        if !matches!(inv_norms.dtype(), DType::F32 | DType::F16) {
            return Err(Error::dtype("inv_norms", "f32 or f16", inv_norms.dtype().name()));
        }
        if inv_norms.len() != self.sequences.slots() {
            return Err(Error::shape(
                "inv_norms",
                format!("{} entries", self.sequences.slots()),
                format!("{} entries", inv_norms.len()),
            ));
        }
        self.inv_norms = Some(inv_norms);
        Ok(self)
    }

    /// Centroids and buckets.
    pub fn codec(&self) -> &Codec<'a> {
        &self.codec
    }

    /// Centroid of every slot.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// Packed residual of slot `row`.
    pub fn residual(&self, row: usize) -> &'a [u8] {
        let width = self.codec.residual_bytes();
        &self.residuals[row * width..(row + 1) * width]
    }

    /// All packed residuals.
    pub fn residuals(&self) -> &'a [u8] {
        self.residuals
    }

    /// How the slots form documents.
    pub fn sequences(&self) -> &Sequences<'a> {
        &self.sequences
    }

    /// Stored inverse norms.
    pub fn inv_norms(&self) -> Option<DataRef<'a>> {
        self.inv_norms
    }

    /// Documents `range` on their own. Panics if out of range.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Residual<'_> {
        let (sequences, slots) = self.sequences.slice(range);
        let width = self.codec.residual_bytes();
        Residual {
            codec: self.codec.clone(),
            codes: Cow::Borrowed(&self.codes[slots.clone()]),
            residuals: &self.residuals[slots.start * width..slots.end * width],
            inv_norms: self.inv_norms.map(|n| n.slice(slots)),
            sequences,
        }
    }
}

impl fmt::Debug for Codec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Codec({} × {}, {} bit, {:?})", self.count(), self.dim(), self.nbits, self.layout)
    }
}

impl fmt::Debug for Residual<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Residual({} documents, {} slots, {:?})",
            self.sequences.count(),
            self.codes.len(),
            self.codec
        )
    }
}

impl fmt::Debug for ApproxScore<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = self.table.shape();
        write!(
            f,
            "ApproxScore({} documents, {} codes, table {shape:?})",
            self.sequences.count(),
            self.codes.len()
        )
    }
}

impl Residual<'_> {
    /// An owned copy.
    pub fn to_buf(&self) -> ResidualBuf {
        let centroids = self.codec.centroids();
        ResidualBuf {
            centroids: Tensor::new(centroids.data().to_buf(), centroids.shape().to_vec())
                .expect("its own shape"),
            bucket_weights: self.codec.bucket_weights.to_vec(),
            nbits: self.codec.nbits,
            layout: self.codec.layout,
            codes: self.codes.to_vec(),
            residuals: self.residuals.to_vec(),
            sequences: self.sequences.owned(),
            inv_norms: self.inv_norms.map(|n| n.to_buf()),
        }
    }

    /// First non-finite number that tokens are made of: centroids, bucket weights, stored inverse norms of tokens that count.
    pub fn check_finite(&self) -> Result<()> {
        self.codec.centroids.check_finite("centroids")?;
        let found = |argument: &'static str, position, got| {
            Err(Error::NonFinite { argument: argument.into(), position, got })
        };
        if let Some(i) = self.codec.bucket_weights.iter().position(|w| !w.is_finite()) {
            return found("bucket_weights", i, self.codec.bucket_weights[i]);
        }
        if let Some(norms) = self.inv_norms
            && let Some(row) = self.sequences.kept_rows().find(|&row| !norms.get(row).is_finite())
        {
            return found("inv_norms", row, norms.get(row));
        }
        Ok(())
    }
}

/// Owned documents as codes and packed residuals.
#[derive(Debug, Clone)]
pub struct ResidualBuf {
    centroids: Tensor,
    bucket_weights: Vec<f32>,
    nbits: u32,
    layout: ResidualLayout,
    codes: Vec<u32>,
    residuals: Vec<u8>,
    sequences: Sequences<'static>,
    inv_norms: Option<DataBuf>,
}

impl ResidualBuf {
    /// Borrows the documents.
    pub fn as_residual(&self) -> Residual<'_> {
        Residual {
            codec: Codec {
                centroids: self.centroids.as_ref(),
                bucket_weights: Cow::Borrowed(&self.bucket_weights),
                nbits: self.nbits,
                layout: self.layout,
            },
            codes: Cow::Borrowed(&self.codes),
            residuals: &self.residuals,
            sequences: self.sequences.borrowed(),
            inv_norms: self.inv_norms.as_ref().map(DataBuf::as_ref),
        }
    }

    /// Sets stored inverse norms, one per slot.
    ///
    /// # Errors
    /// As [`Residual::with_inv_norms`].
    pub fn with_inv_norms(mut self, inv_norms: DataBuf) -> Result<Self> {
        self.as_residual().with_inv_norms(inv_norms.as_ref())?;
        self.inv_norms = Some(inv_norms);
        Ok(self)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let centroids = self.centroids.data().len() * self.centroids.dtype().size();
        let norms = self.inv_norms.as_ref().map_or(0, |n| n.len() * n.dtype().size());
        centroids
            + 4 * (self.bucket_weights.len() + self.codes.len())
            + self.residuals.len()
            + norms
            + self.sequences.bytes()
    }
}

fn doc(error: Error) -> Error {
    error.map_argument(|name| match name {
        "lengths" => "doc_lengths".into(),
        "cu_seqlens" => "cu_seqlens_d".into(),
        other => other.to_owned().into(),
    })
}

/// Codes within lengths must be below `count`.
pub(crate) fn check_codes(codes: &[u32], sequences: &Sequences<'_>, count: usize) -> Result<()> {
    match sequences.kept_rows().find(|&row| codes[row] as usize >= count) {
        Some(row) => {
            Err(Error::index("codes", row, format!("below {count} centroids"), codes[row].to_string()))
        }
        None => Ok(()),
    }
}

/// `plaid_approx_score`: `Σ_s max_t query_centroid_scores[codes[t], s]` per document.
#[derive(Clone)]
pub struct ApproxScore<'a> {
    table: TensorRef<'a>,
    codes: Cow<'a, [u32]>,
    sequences: Sequences<'a>,
}

impl<'a> ApproxScore<'a> {
    /// `query_centroid_scores [C, Lq]` (f32 or f16), `codes [B, L]`, `doc_lengths [B]`.
    ///
    /// # Errors
    /// `ERR_SHAPE`, `ERR_DTYPE` for operands that do not fit, `ERR_INDEX` for a code that is no centroid.
    pub fn new(
        query_centroid_scores: TensorRef<'a>,
        codes: impl Integers<'a>,
        shape: [usize; 2],
        doc_lengths: impl Integers<'a>,
    ) -> Result<Self> {
        let sequences =
            Sequences::padded(Axes::Flat(shape[0]), shape[1])?.with_lengths(doc_lengths).map_err(doc)?;
        Self::with_sequences(query_centroid_scores, codes, sequences)
    }

    /// The same over packed codes `[T]` with `cu_seqlens_d`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn packed(
        query_centroid_scores: TensorRef<'a>,
        codes: impl Integers<'a>,
        cu_seqlens_d: impl Integers<'a>,
    ) -> Result<Self> {
        let codes = codes.into_u32("codes")?;
        let sequences = Sequences::packed(cu_seqlens_d, codes.len()).map_err(doc)?;
        Self::with_sequences(query_centroid_scores, codes, sequences)
    }

    fn with_sequences(
        table: TensorRef<'a>,
        codes: impl Integers<'a>,
        sequences: Sequences<'a>,
    ) -> Result<Self> {
        let [count, _] = *table.shape() else {
            return Err(Error::shape(
                "query_centroid_scores",
                "rank 2 [C, Lq]",
                format!("{:?}", table.shape()),
            ));
        };
        if !matches!(table.dtype(), DType::F32 | DType::F16) {
            return Err(Error::dtype("query_centroid_scores", "f32 or f16", table.dtype().name()));
        }
        let codes = codes.into_u32("codes")?;
        if codes.len() != sequences.slots() {
            return Err(Error::shape(
                "codes",
                format!("{} entries (shape {:?})", sequences.slots(), sequences.shape()),
                format!("{} entries", codes.len()),
            ));
        }
        check_codes(&codes, &sequences, count)?;
        Ok(Self { table, codes, sequences })
    }

    /// `[C, Lq]`.
    pub fn table(&self) -> &TensorRef<'a> {
        &self.table
    }

    /// Centroid of every slot.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// How the slots form documents.
    pub fn sequences(&self) -> &Sequences<'a> {
        &self.sequences
    }

    /// Work: one comparison per token and query token.
    pub fn cost(&self) -> super::Cost {
        let lq = self.table.shape()[1] as u64;
        let tokens = self.sequences.kept() as u64;
        let bytes = (self.table.data().len() * self.table.dtype().size()) as u64 + 4 * tokens;
        super::Cost { flops: tokens * lq, bytes: bytes + 4 * self.sequences.count() as u64 }
    }
}
