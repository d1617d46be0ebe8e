//! Plain objects of `native.ts`, read. Functions that several calls use are not inlined: every page downloads them.

use js_sys::{Function, Uint8Array};
use maxsim_core::{Cancel, Result};
use maxsim_js::{Elements, Held};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

/// The function that says whether a call should stop, as a [`Cancel`].
#[inline(never)]
pub(crate) fn cancel(poll: Option<Function>) -> Cancel {
    match poll {
        Some(poll) => Cancel::polling(move || poll.call0(&JsValue::NULL).is_ok_and(|stop| stop.is_truthy())),
        None => Cancel::new(),
    }
}

fn usizes(numbers: Vec<f64>) -> Vec<usize> {
    // Saturates; TypeScript lets non-negative safe integers through, and what does not fit fits no array either.
    numbers.into_iter().map(|n| n as usize).collect()
}

/// Copied from JavaScript's memory to ours, the only copy there is.
fn elements(bytes: &Uint8Array, dtype: &str) -> Result<Elements> {
    Elements::copied(dtype.parse()?, bytes.length() as usize, |to| bytes.copy_to(to))
}

#[wasm_bindgen]
extern "C" {
    /// `RawTensor` of `native.ts`.
    pub type RawTensor;
    #[wasm_bindgen(method, getter)]
    fn name(this: &RawTensor) -> String;
    #[wasm_bindgen(method, getter)]
    fn data(this: &RawTensor) -> Uint8Array;
    #[wasm_bindgen(method, getter)]
    fn dtype(this: &RawTensor) -> String;
    #[wasm_bindgen(method, getter)]
    fn shape(this: &RawTensor) -> Option<Vec<f64>>;

    /// `RawTokens` of `native.ts`: a tensor, or packed, with more.
    #[wasm_bindgen(extends = RawTensor)]
    pub type RawTokens;
    #[wasm_bindgen(method, getter)]
    fn dim(this: &RawTokens) -> Option<f64>;
    #[wasm_bindgen(method, getter)]
    fn offsets(this: &RawTokens) -> Option<Vec<u32>>;
    #[wasm_bindgen(method, getter)]
    fn mask(this: &RawTokens) -> Option<Vec<u8>>;
    #[wasm_bindgen(method, getter)]
    fn lengths(this: &RawTokens) -> Option<Vec<u32>>;
    #[wasm_bindgen(method, getter)]
    fn scales(this: &RawTokens) -> Option<Vec<f32>>;
}

impl RawTensor {
    #[inline(never)]
    pub(crate) fn read(&self) -> Result<maxsim_js::RawTensor> {
        let shape = usizes(self.shape().unwrap_or_default());
        Ok(maxsim_js::RawTensor { name: self.name(), data: elements(&self.data(), &self.dtype())?, shape })
    }
}

impl RawTokens {
    #[inline(never)]
    pub(crate) fn read(&self) -> Result<maxsim_js::RawTokens> {
        Ok(maxsim_js::RawTokens {
            name: self.name(),
            data: elements(&self.data(), &self.dtype())?,
            shape: self.shape().map(usizes),
            dim: self.dim().map(|dim| dim as usize),
            offsets: self.offsets().map(Held::Copied),
            mask: self.mask().map(Held::Copied),
            lengths: self.lengths().map(Held::Copied),
            scales: self.scales().map(Held::Copied),
        })
    }
}

#[wasm_bindgen]
extern "C" {
    /// `RawCodes` of `native.ts`.
    pub type RawCodes;
    #[wasm_bindgen(method, getter)]
    fn name(this: &RawCodes) -> String;
    #[wasm_bindgen(method, getter)]
    fn codes(this: &RawCodes) -> Vec<u32>;
    #[wasm_bindgen(method, getter)]
    fn lengths(this: &RawCodes) -> Option<Vec<u32>>;
    #[wasm_bindgen(method, getter)]
    fn offsets(this: &RawCodes) -> Option<Vec<u32>>;

    /// `RawCodec` of `native.ts`.
    pub type RawCodec;
    #[wasm_bindgen(method, getter)]
    fn name(this: &RawCodec) -> String;
    #[wasm_bindgen(method, getter)]
    fn centroids(this: &RawCodec) -> RawTensor;
    #[wasm_bindgen(method, getter, js_name = bucketWeights)]
    fn bucket_weights(this: &RawCodec) -> Vec<f32>;
    #[wasm_bindgen(method, getter)]
    fn nbits(this: &RawCodec) -> f64;
    #[wasm_bindgen(method, getter)]
    fn layout(this: &RawCodec) -> String;

    /// `RawResidual` of `native.ts`.
    pub type RawResidual;
    #[wasm_bindgen(method, getter)]
    fn codes(this: &RawResidual) -> RawCodes;
    #[wasm_bindgen(method, getter)]
    fn residuals(this: &RawResidual) -> Vec<u8>;
    #[wasm_bindgen(method, getter)]
    fn codec(this: &RawResidual) -> RawCodec;
    #[wasm_bindgen(method, getter, js_name = invNorms)]
    fn inv_norms(this: &RawResidual) -> Option<RawTensor>;
}

impl RawCodes {
    #[inline(never)]
    pub(crate) fn read(&self) -> maxsim_js::RawCodes {
        maxsim_js::RawCodes {
            name: self.name(),
            codes: Held::Copied(self.codes()),
            lengths: self.lengths().map(Held::Copied),
            offsets: self.offsets().map(Held::Copied),
        }
    }
}

impl RawCodec {
    #[inline(never)]
    pub(crate) fn read(&self) -> Result<maxsim_js::RawCodec> {
        Ok(maxsim_js::RawCodec {
            name: self.name(),
            centroids: self.centroids().read()?,
            bucket_weights: Held::Copied(self.bucket_weights()),
            nbits: self.nbits() as u32,
            layout: self.layout(),
        })
    }
}

impl RawResidual {
    #[inline(never)]
    pub(crate) fn read(&self) -> Result<maxsim_js::RawResidual> {
        Ok(maxsim_js::RawResidual {
            codes: self.codes().read(),
            residuals: Held::Copied(self.residuals()),
            codec: self.codec().read()?,
            inv_norms: self.inv_norms().map(|norms| norms.read()).transpose()?,
        })
    }
}

#[wasm_bindgen]
extern "C" {
    /// `RawOptions` of `native.ts`.
    pub type RawOptions;
    #[wasm_bindgen(method, getter)]
    fn normalize(this: &RawOptions) -> Option<bool>;
    #[wasm_bindgen(method, getter)]
    fn argmax(this: &RawOptions) -> Option<bool>;
    #[wasm_bindgen(method, getter)]
    fn precision(this: &RawOptions) -> Option<String>;
    #[wasm_bindgen(method, getter, js_name = validateFinite)]
    fn validate_finite(this: &RawOptions) -> Option<bool>;
    #[wasm_bindgen(method, getter, js_name = topK)]
    fn top_k(this: &RawOptions) -> Option<f64>;
    #[wasm_bindgen(method, getter)]
    fn chunk(this: &RawOptions) -> Option<f64>;
    #[wasm_bindgen(method, getter)]
    fn largest(this: &RawOptions) -> Option<bool>;
    #[wasm_bindgen(method, getter)]
    fn sorted(this: &RawOptions) -> Option<bool>;

    /// `RawBackward` of `native.ts`.
    pub type RawBackward;
    #[wasm_bindgen(method, getter, js_name = gradScores)]
    fn grad_scores(this: &RawBackward) -> Vec<f32>;
    #[wasm_bindgen(method, getter)]
    fn argmax(this: &RawBackward) -> Option<Vec<i32>>;
    #[wasm_bindgen(method, getter)]
    fn method(this: &RawBackward) -> Option<String>;
    #[wasm_bindgen(method, getter)]
    fn wants(this: &RawBackward) -> Option<Vec<String>>;

    /// `RawOp` of `native.ts`.
    pub type RawOp;
    #[wasm_bindgen(method, getter)]
    fn op(this: &RawOp) -> String;
    #[wasm_bindgen(method, getter)]
    fn q(this: &RawOp) -> Option<RawTokens>;
    #[wasm_bindgen(method, getter)]
    fn d(this: &RawOp) -> Option<RawTokens>;
    #[wasm_bindgen(method, getter)]
    fn residual(this: &RawOp) -> Option<RawResidual>;
    #[wasm_bindgen(method, getter, js_name = pairQIdx)]
    fn pair_q_idx(this: &RawOp) -> Option<Vec<u32>>;
    #[wasm_bindgen(method, getter, js_name = pairDIdx)]
    fn pair_d_idx(this: &RawOp) -> Option<Vec<u32>>;
    #[wasm_bindgen(method, getter)]
    fn h(this: &RawOp) -> Option<RawTokens>;
    #[wasm_bindgen(method, getter)]
    fn w(this: &RawOp) -> Option<RawTensor>;
    #[wasm_bindgen(method, getter)]
    fn b(this: &RawOp) -> Option<RawTensor>;
    #[wasm_bindgen(method, getter)]
    fn table(this: &RawOp) -> Option<RawTensor>;
    #[wasm_bindgen(method, getter)]
    fn codes(this: &RawOp) -> Option<RawCodes>;
    #[wasm_bindgen(method, getter)]
    fn backward(this: &RawOp) -> Option<RawBackward>;
    #[wasm_bindgen(method, getter)]
    fn options(this: &RawOp) -> RawOptions;

    /// `RawCorpusOptions` of `native.ts`.
    pub type RawCorpusOptions;
    #[wasm_bindgen(method, getter)]
    fn storage(this: &RawCorpusOptions) -> Option<String>;
    #[wasm_bindgen(method, getter)]
    fn normalize(this: &RawCorpusOptions) -> Option<bool>;
    #[wasm_bindgen(method, getter, js_name = validateFinite)]
    fn validate_finite(this: &RawCorpusOptions) -> Option<bool>;

    /// `RawEngineOptions` of `native.ts`.
    pub type RawEngineOptions;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn backend(this: &RawEngineOptions) -> Option<String>;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn threads(this: &RawEngineOptions) -> Option<f64>;
    #[wasm_bindgen(method, getter, js_name = cpuLevel)]
    pub(crate) fn cpu_level(this: &RawEngineOptions) -> Option<String>;
    #[wasm_bindgen(method, getter, js_name = gpuTier)]
    pub(crate) fn gpu_tier(this: &RawEngineOptions) -> Option<String>;
    #[wasm_bindgen(method, getter, js_name = gpuMemory)]
    pub(crate) fn gpu_memory(this: &RawEngineOptions) -> Option<f64>;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn silent(this: &RawEngineOptions) -> Option<bool>;
}

impl RawOptions {
    fn read(&self) -> maxsim_js::RawOptions {
        maxsim_js::RawOptions {
            normalize: self.normalize(),
            argmax: self.argmax(),
            precision: self.precision(),
            validate_finite: self.validate_finite(),
            top_k: self.top_k().map(|k| k as usize),
            chunk: self.chunk().map(|chunk| chunk as usize),
            largest: self.largest(),
            sorted: self.sorted(),
        }
    }
}

impl RawBackward {
    fn read(&self) -> maxsim_js::RawBackward {
        maxsim_js::RawBackward {
            grad_scores: Held::Copied(self.grad_scores()),
            argmax: self.argmax().map(Held::Copied),
            method: self.method(),
            wants: self.wants(),
        }
    }
}

impl RawOp {
    #[inline(never)]
    pub(crate) fn read(&self) -> Result<maxsim_js::RawOp> {
        let tokens = |raw: Option<RawTokens>| raw.map(|raw| raw.read()).transpose();
        #[cfg(feature = "all")]
        let tensor = |raw: Option<RawTensor>| raw.map(|raw| raw.read()).transpose();
        Ok(maxsim_js::RawOp {
            op: self.op(),
            q: tokens(self.q())?,
            d: tokens(self.d())?,
            #[cfg(feature = "all")]
            residual: self.residual().map(|raw| raw.read()).transpose()?,
            pair_q_idx: self.pair_q_idx().map(Held::Copied),
            pair_d_idx: self.pair_d_idx().map(Held::Copied),
            #[cfg(feature = "all")]
            h: tokens(self.h())?,
            #[cfg(feature = "all")]
            w: tensor(self.w())?,
            #[cfg(feature = "all")]
            b: tensor(self.b())?,
            #[cfg(feature = "all")]
            backward: self.backward().map(|raw| raw.read()),
            #[cfg(feature = "all")]
            table: tensor(self.table())?,
            #[cfg(feature = "all")]
            codes: self.codes().map(|raw| raw.read()),
            options: self.options().read(),
            ..maxsim_js::RawOp::default()
        })
    }
}

impl RawCorpusOptions {
    #[inline(never)]
    pub(crate) fn read(&self) -> maxsim_js::RawCorpusOptions {
        maxsim_js::RawCorpusOptions {
            storage: self.storage(),
            normalize: self.normalize(),
            validate_finite: self.validate_finite(),
        }
    }
}

#[cfg(feature = "plaid-all")]
pub(crate) use plaid::{RawBatch, RawBuildOptions};
#[cfg(feature = "index")]
pub(crate) use plaid::{RawIds, RawIndexSearch, RawSelection, RawValue};

/// What indexes take.
#[cfg(feature = "index")]
#[cfg_attr(not(feature = "plaid-all"), allow(dead_code, reason = "some of it is for changes"))]
mod plaid {
    use js_sys::Array;
    use maxsim_plaid::EncoderRecord;
    use wasm_bindgen::prelude::wasm_bindgen;

    use super::RawTokens;

    #[wasm_bindgen]
    extern "C" {
        /// `RawIds` of `native.ts`.
        pub type RawIds;
        #[wasm_bindgen(method, getter)]
        fn numbers(this: &RawIds) -> Option<Vec<u64>>;
        #[wasm_bindgen(method, getter)]
        fn texts(this: &RawIds) -> Option<Vec<String>>;

        /// `RawValue` of `native.ts`.
        pub type RawValue;
        #[wasm_bindgen(method, getter)]
        fn name(this: &RawValue) -> String;
        #[wasm_bindgen(method, getter)]
        fn bool(this: &RawValue) -> Option<bool>;
        #[wasm_bindgen(method, getter)]
        fn int(this: &RawValue) -> Option<i64>;
        #[wasm_bindgen(method, getter)]
        fn float(this: &RawValue) -> Option<f64>;
        #[wasm_bindgen(method, getter)]
        fn text(this: &RawValue) -> Option<String>;

        /// `RawBatch` of `native.ts`.
        pub type RawBatch;
        #[wasm_bindgen(method, getter)]
        pub fn documents(this: &RawBatch) -> RawTokens;
        #[wasm_bindgen(method, getter)]
        pub fn ids(this: &RawBatch) -> Option<RawIds>;
        #[wasm_bindgen(method, getter)]
        pub fn metadata(this: &RawBatch) -> Option<Vec<Array>>;

        /// `RawSelection` of `native.ts`.
        pub type RawSelection;
        #[wasm_bindgen(method, getter)]
        pub fn filter(this: &RawSelection) -> Option<String>;
        #[wasm_bindgen(method, getter)]
        pub fn parameters(this: &RawSelection) -> Option<Array>;
        #[wasm_bindgen(method, getter)]
        pub fn ids(this: &RawSelection) -> Option<RawIds>;

        /// `RawIndexSearch` of `native.ts`.
        pub type RawIndexSearch;
        #[wasm_bindgen(method, getter, js_name = topK)]
        fn top_k(this: &RawIndexSearch) -> f64;
        #[wasm_bindgen(method, getter, js_name = nIvfProbe)]
        fn n_ivf_probe(this: &RawIndexSearch) -> Option<f64>;
        #[wasm_bindgen(method, getter, js_name = nFullScores)]
        fn n_full_scores(this: &RawIndexSearch) -> Option<f64>;
        #[wasm_bindgen(method, getter, js_name = centroidScoreThreshold)]
        fn centroid_score_threshold(this: &RawIndexSearch) -> Option<f64>;
        #[wasm_bindgen(method, getter)]
        fn exact(this: &RawIndexSearch) -> Option<bool>;
        #[wasm_bindgen(method, getter)]
        fn normalize(this: &RawIndexSearch) -> Option<bool>;
        #[wasm_bindgen(method, getter)]
        fn explain(this: &RawIndexSearch) -> Option<bool>;
        #[wasm_bindgen(method, getter)]
        fn precision(this: &RawIndexSearch) -> Option<String>;
        #[wasm_bindgen(method, getter)]
        pub fn which(this: &RawIndexSearch) -> RawSelection;

        /// `RawBuildOptions` of `native.ts`.
        pub type RawBuildOptions;
        #[wasm_bindgen(method, getter)]
        fn ids(this: &RawBuildOptions) -> Option<String>;
        #[wasm_bindgen(method, getter)]
        fn nbits(this: &RawBuildOptions) -> Option<f64>;
        #[wasm_bindgen(method, getter)]
        fn centroids(this: &RawBuildOptions) -> Option<f64>;
        #[wasm_bindgen(method, getter)]
        fn iterations(this: &RawBuildOptions) -> Option<f64>;
        #[wasm_bindgen(method, getter)]
        fn seed(this: &RawBuildOptions) -> Option<f64>;
        #[wasm_bindgen(method, getter)]
        fn replace(this: &RawBuildOptions) -> Option<bool>;
        #[wasm_bindgen(method, getter)]
        fn source(this: &RawBuildOptions) -> Option<String>;
        #[wasm_bindgen(method, getter)]
        fn encoder(this: &RawBuildOptions) -> Option<RawEncoderIdentity>;

        /// `EncoderIdentity` of `native.ts`.
        pub type RawEncoderIdentity;
        #[wasm_bindgen(method, getter)]
        fn name(this: &RawEncoderIdentity) -> String;
        #[wasm_bindgen(method, getter)]
        fn location(this: &RawEncoderIdentity) -> Option<String>;
        #[wasm_bindgen(method, getter)]
        fn fingerprint(this: &RawEncoderIdentity) -> u64;
    }

    impl RawIds {
        pub(crate) fn read(&self) -> maxsim_js::RawIds {
            maxsim_js::RawIds { numbers: self.numbers(), texts: self.texts() }
        }
    }

    impl RawValue {
        pub(crate) fn read(&self) -> maxsim_js::RawValue {
            maxsim_js::RawValue {
                name: self.name(),
                bool: self.bool(),
                int: self.int(),
                float: self.float(),
                text: self.text(),
            }
        }
    }

    impl RawIndexSearch {
        pub(crate) fn read(&self) -> maxsim_js::RawIndexSearch {
            maxsim_js::RawIndexSearch {
                top_k: self.top_k() as usize,
                n_ivf_probe: self.n_ivf_probe().map(|n| n as usize),
                n_full_scores: self.n_full_scores().map(|n| n as usize),
                centroid_score_threshold: self.centroid_score_threshold(),
                exact: self.exact(),
                normalize: self.normalize(),
                explain: self.explain(),
                precision: self.precision(),
            }
        }
    }

    impl RawBuildOptions {
        pub(crate) fn read(&self) -> maxsim_js::RawBuildOptions {
            maxsim_js::RawBuildOptions {
                ids: self.ids(),
                nbits: self.nbits().map(|n| n as usize),
                centroids: self.centroids().map(|n| n as usize),
                iterations: self.iterations().map(|n| n as usize),
                seed: self.seed().map(|seed| seed as u64),
                replace: self.replace(),
                source: self.source(),
                encoder: self.encoder().map(|encoder| EncoderRecord {
                    name: encoder.name(),
                    location: encoder.location().unwrap_or_default(),
                    fingerprint: encoder.fingerprint(),
                }),
            }
        }
    }
}
