//! Any bytes are an index in one file, or an error; what was opened can be asked anything. Checksums count for nothing here
//! (`cfg(fuzzing)` in the container's reader), or no mutation would get behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maxsim_plaid::store::{PackStorage, Verify, shared};
use maxsim_plaid::{Filter, Index, Selection};

fuzz_target!(|bytes: &[u8]| {
    let Ok(storage) = PackStorage::new(shared(bytes), "pack") else { return };
    let Ok(index) = Index::open_in(storage, Verify::All) else { return };
    let _ = index.verify();
    let info = index.info();
    for position in 0..index.live().len() {
        let id = index.id(position);
        let _ = (index.position(&id), index.metadata(&id));
    }
    for (name, _) in &info.columns {
        let filter = format!("\"{}\" IS NOT NULL", name.replace('"', "\"\""));
        let filter = Filter::parse(&filter, &[]).expect("a filter");
        let chosen = index.select(Selection { filter: Some(&filter), ids: None });
        assert!(chosen.expect("a column of the index").count() <= info.documents);
    }
});
