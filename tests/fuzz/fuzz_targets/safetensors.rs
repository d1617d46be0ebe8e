//! Any bytes are a file or an error; every tensor of a file can be read or is an error, within the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maxsim_formats::SafeTensors;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = SafeTensors::from_bytes(bytes) {
        let mut total = 0;
        for name in file.names() {
            let view = file.view(name).expect("a name from the file");
            total += view.bytes().len();
            if let Ok(array) = view.to_array() {
                assert_eq!(array.len() * array.element_type().size(), view.bytes().len());
            }
        }
        assert!(total <= bytes.len());
    }
});
