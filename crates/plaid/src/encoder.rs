//! What made the vectors of an index's texts.

use std::fmt;

use maxsim_core::{Error, Result};

use crate::store::wire;

/// The encoder of an index's documents, kept in the index so that queries are encoded by the same one.
///
/// Vectors of two models have nothing to do with each other, even where they have the same dimension: scores between them are
/// noise that looks like scores. This is what tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderRecord {
    /// The model's name, for people.
    pub name: String,
    /// Where to load it from: a folder, or an id on a model hub. Empty for an encoder that programs bring along.
    pub location: String,
    /// Identity of the model: equal for encoders whose vectors can be compared.
    pub fingerprint: u64,
}

impl EncoderRecord {
    /// Whether vectors of `encoder` can be compared with those of this index.
    ///
    /// # Errors
    /// `ERR_VALUE` (argument `encoder`) that says both, if they are different models.
    pub fn check(&self, encoder: &Self) -> Result<()> {
        if self.fingerprint == encoder.fingerprint {
            return Ok(());
        }
        let expected = format!("{self}, which encoded the documents of this index");
        Err(Error::value("encoder", expected, encoder.to_string()))
    }

    pub(crate) fn write(&self, record: &mut wire::Writer) {
        record.text(&self.name);
        record.text(&self.location);
        record.u64(self.fingerprint);
    }

    pub(crate) fn read(record: &mut wire::Reader<'_>) -> Result<Self> {
        Ok(Self {
            name: record.text()?.to_owned(),
            location: record.text()?.to_owned(),
            fingerprint: record.u64()?,
        })
    }
}

impl fmt::Display for EncoderRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.location.is_empty() && self.location != self.name {
            write!(f, " of {}", self.location)?;
        }
        write!(f, " (fingerprint {:016x})", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_model_is_refused_and_both_are_named() {
        let record = |name: &str, location: &str, fingerprint| EncoderRecord {
            name: name.into(),
            location: location.into(),
            fingerprint,
        };
        let own = record("colbert", "models/colbert", 7);
        own.check(&record("colbert", "/elsewhere/colbert", 7)).unwrap();
        let error = own.check(&record("other", "", 8)).unwrap_err();
        assert_eq!((error.code().as_str(), error.argument()), ("ERR_VALUE", Some("encoder")));
        let message = error.to_string();
        assert!(message.contains("colbert of models/colbert (fingerprint 0000000000000007)"), "{message}");
        assert!(message.ends_with("got other (fingerprint 0000000000000008)"), "{message}");
    }
}
