//! CRC-32C: the library, which uses the CPU's instruction; in WebAssembly, which has none, the same by tables that are made when they
//! are needed, for those of the library would be a good part of what pages download.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crc32c::{crc32c, crc32c_append};
#[cfg(target_arch = "wasm32")]
pub(crate) use tables::{crc32c, crc32c_append};

#[cfg(any(target_arch = "wasm32", test))]
mod tables {
    use std::sync::OnceLock;

    /// Castagnoli's polynomial, lowest bit first.
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    /// What a byte that `k` bytes follow makes of the sum: "slicing by 8" (Kounavis and Berry 2005).
    fn tables() -> &'static [[u32; 256]; 8] {
        static TABLES: OnceLock<Box<[[u32; 256]; 8]>> = OnceLock::new();
        TABLES.get_or_init(|| {
            let mut tables = Box::new([[0; 256]; 8]);
            for byte in 0..256 {
                let mut sum = byte as u32;
                for _ in 0..8 {
                    sum = (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 };
                }
                tables[0][byte] = sum;
            }
            for k in 1..8 {
                for byte in 0..256 {
                    let sum = tables[k - 1][byte];
                    tables[k][byte] = (sum >> 8) ^ tables[0][sum as usize & 255];
                }
            }
            tables
        })
    }

    /// Of `bytes`.
    pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
        crc32c_append(0, bytes)
    }

    /// Of bytes whose sum is `sum`, followed by `bytes`.
    pub(crate) fn crc32c_append(sum: u32, bytes: &[u8]) -> u32 {
        let tables = tables();
        let (eights, rest) = bytes.as_chunks::<8>();
        let mut sum = !sum;
        for eight in eights {
            let word = u64::from_le_bytes(*eight) ^ u64::from(sum);
            sum = (0..8).fold(0, |sum, k| sum ^ tables[7 - k][(word >> (8 * k)) as usize & 255]);
        }
        for &byte in rest {
            sum = (sum >> 8) ^ tables[0][(sum as u8 ^ byte) as usize];
        }
        !sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_the_librarys() {
        assert_eq!(tables::crc32c(b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for len in (0..40).chain([999, 1000]) {
            assert_eq!(tables::crc32c(&bytes[..len]), crc32c(&bytes[..len]), "{len}");
            let (a, b) = bytes.split_at(len);
            assert_eq!(tables::crc32c_append(tables::crc32c(a), b), crc32c_append(crc32c(a), b), "{len}");
        }
    }
}
