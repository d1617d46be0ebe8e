//! From a directory into an index of our own.

use std::sync::Arc;

use maxsim_core::{Engine, Result};

use super::Directory;
use crate::ids::IdKind;
use crate::index::Index;
use crate::store::Storage;
use crate::store::manifest::CURRENT;
use crate::writer::{CreateOptions, IndexWriter, lock};

/// Tokens read at a time: some 150 MB at 128 dimensions and 4 bit, twice.
const TOKENS: usize = 1 << 20;

/// Makes an index of a directory's documents, whose ids are their numbers there. Codes and residuals stay as they are. The index
/// appears when it is complete.
///
/// # Errors
/// Those of reading the directory; `ERR_VALUE` if there is an index and `replace` is not set, `ERR_LOCKED`, `ERR_IO`.
pub fn import(
    engine: &Engine,
    directory: &Directory,
    storage: impl Storage + 'static,
    replace: bool,
) -> Result<Index> {
    let options = CreateOptions { ids: IdKind::Number, replace };
    let codec = directory.codec().clone();
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let guard = lock(&*storage)?;
    let mut writer = IndexWriter::begin(engine, storage, guard, codec, options, CURRENT)?;
    for segment in directory.segments(TOKENS) {
        writer.add_segment(&segment?, None, &[])?;
    }
    writer.commit()?;
    writer.index()
}
