//! Any bytes are an array or an error; an array is written and read back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maxsim_formats::npy;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(array) = npy::from_bytes(bytes) {
        assert!(array.len() <= bytes.len());
        let written = npy::to_bytes(&array).expect("what was read has a name");
        let again = npy::from_bytes(&written).expect("what was written is read");
        assert_eq!(again.shape(), array.shape());
        // Bytes and not values: NaN is not equal to itself.
        assert_eq!(npy::to_bytes(&again).expect("as before"), written);
    }
});
