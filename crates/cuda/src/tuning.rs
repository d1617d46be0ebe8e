//! Tables of what was measured: the tile that is fastest for a class of shapes, and a device's ceilings.
//!
//! Kernels of a family differ in how many query rows share a tile; whatever is chosen, scores have the same bits. Without an entry the
//! tallest tile is taken that the rows fill and shared memory holds. `maxsim tune` measures the legal ones and writes a table;
//! tables of known devices are committed in `tables/`, `MAXSIM_CUDA_TUNING` names another file.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use maxsim_core::{Cost, DType, Error, Precision, Result};
use serde::{Deserialize, Serialize};

use crate::config::{Kind, Problem, Scorer, Stored, Use};
use crate::device::Caps;

/// Version of tables that this build reads and writes.
const VERSION: u32 = 1;
/// Query rows of tiles.
const TILES: [u32; 5] = [16, 32, 64, 128, 256];
/// Committed tables.
const COMMITTED: [&str; 1] = [include_str!("../tables/h200.json")];

/// Shapes that one entry is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeClass {
    /// Element type of queries.
    pub q: String,
    /// Element type of documents.
    pub d: String,
    /// Embedding dimension.
    pub dim: u32,
    /// Query rows that can share a tile, rounded up to 16, 32, 64, 128 or 256; 256 stands for more as well.
    pub rows: u32,
    /// Winners are asked for.
    pub argmax: bool,
    /// Documents have factors: norms or scales.
    pub scaled: bool,
}

impl ShapeClass {
    /// The class of so many rows that can share a tile.
    fn class_of(rows: u32) -> u32 {
        TILES.into_iter().find(|&tile| tile >= rows).unwrap_or(256)
    }

    /// Whether a problem is of this class; lists were not measured.
    fn holds(&self, problem: &Problem) -> bool {
        let (Stored::Vectors(d), Use::Scores { argmax }) = (problem.stored, problem.purpose) else {
            return false;
        };
        // Numbers first: this is asked on every call.
        !problem.listed
            && self.dim == problem.dim
            && self.rows == Self::class_of(problem.rows)
            && (self.argmax, self.scaled) == (argmax, problem.scaled)
            && self.q == problem.product.dtype().name()
            && self.d == d.dtype().name()
    }

    /// Whether tiles may have so many rows: no more than there are, and whole blocks of the 32 that are added up together.
    fn allows(&self, tile: u32) -> bool {
        TILES.contains(&tile) && tile <= self.rows && tile >= self.rows.min(32)
    }

    pub(crate) fn dtypes(&self) -> Result<[DType; 2]> {
        Ok([self.q.parse()?, self.d.parse()?])
    }

    /// A problem of this class.
    fn problem(&self) -> Result<Problem> {
        let [q, d] = self.dtypes()?;
        Ok(Problem {
            product: Kind::from(q),
            stored: Stored::Vectors(d.into()),
            dim: self.dim,
            rows: self.rows,
            listed: false,
            scaled: self.scaled,
            precision: Precision::Default,
            purpose: Use::Scores { argmax: self.argmax },
        })
    }

    /// Tiles that can be chosen between: what the device's kernels for this class come in, not taller than its rows need.
    pub(crate) fn candidates(&self, caps: &Caps) -> Result<Vec<u32>> {
        let problem = self.problem()?;
        let plain = Caps { tuning: Arc::default(), ..caps.clone() };
        let mut tiles: Vec<u32> = TILES
            .into_iter()
            .filter(|&tile| self.allows(tile))
            .map(|rows| Scorer::choose(&plain, &Problem { rows, ..problem }).rows())
            .collect();
        tiles.dedup();
        Ok(tiles)
    }
}

/// What was measured for a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Shapes.
    pub class: ShapeClass,
    /// Query rows of the fastest tile.
    pub tile: u32,
    /// Microseconds with each tile.
    pub microseconds: BTreeMap<u32, f64>,
}

/// What a device can do at most, as measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceilings {
    /// Memory read, in 10⁹ bytes a second.
    pub read_gb_s: f64,
    /// Products of 16-bit floats, in 10¹² operations a second.
    pub tflops_16_bit: f64,
    /// Products of e4m3 and int8.
    pub tflops_8_bit: f64,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    version: u32,
    /// Name of the device it was measured on, as the driver gives it.
    pub device: String,
    /// Its ceilings, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceilings: Option<Ceilings>,
    /// Measured classes.
    pub entries: Vec<Entry>,
}

impl Default for Table {
    fn default() -> Self {
        Self { version: VERSION, device: String::new(), ceilings: None, entries: Vec::new() }
    }
}

impl Table {
    /// An empty table of a device, with the ceilings that are known of it.
    pub fn of(device: &str) -> Self {
        let ceilings = Self::committed(device).and_then(|table| table.ceilings);
        Self { device: device.into(), ceilings, ..Self::default() }
    }

    /// Reads a table.
    ///
    /// # Errors
    /// `ERR_FORMAT` for text that is no table, a class or tile that cannot be, and a class that comes twice; `ERR_VERSION` for a
    /// version that this build does not read.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        const WHAT: &str = "tuning table";
        let wrong = |problem: String| Error::format(WHAT, problem);
        let Version { version } = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if version != VERSION {
            return Err(Error::Version {
                what: WHAT.into(),
                found: version.to_string(),
                supported: VERSION.to_string(),
            });
        }
        let table: Self = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let mut seen = HashSet::new();
        for (i, Entry { class, tile, microseconds }) in table.entries.iter().enumerate() {
            let wrong = |problem: String| Err(wrong(format!("entry {i}: {problem}")));
            if let Err(error) = class.dtypes() {
                return wrong(error.to_string());
            }
            if class.dim == 0 || !TILES.contains(&class.rows) {
                return wrong(format!("no shapes of {} rows and dimension {}", class.rows, class.dim));
            }
            if !class.allows(*tile) {
                return wrong(format!("no tile of this class has {tile} rows"));
            }
            if microseconds.values().any(|us| !(us.is_finite() && *us > 0.0)) {
                return wrong("a time that is no positive number".into());
            }
            if !seen.insert(class) {
                return wrong("its class has an entry already".into());
            }
        }
        if let Some(Ceilings { read_gb_s, tflops_16_bit, tflops_8_bit }) = table.ceilings
            && ![read_gb_s, tflops_16_bit, tflops_8_bit].iter().all(|x| x.is_finite() && *x > 0.0)
        {
            return Err(wrong("a ceiling that is no positive number".into()));
        }
        Ok(table)
    }

    /// The same, of `device` if it is nobody's: one that nothing was measured for.
    pub(crate) fn named(&self, device: &str) -> Self {
        let device = if self.device.is_empty() { device } else { &self.device };
        Self { device: device.into(), ..self.clone() }
    }

    /// The table as a file has it.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("tables are plain data") + "\n"
    }

    /// The committed table of a device.
    fn committed(device: &str) -> Option<Self> {
        let tables =
            COMMITTED.iter().map(|text| Self::parse(text).expect("tests read every committed table"));
        tables.into_iter().find(|table| table.device == device)
    }

    /// The table to use with a device: that of `MAXSIM_CUDA_TUNING`, else the committed one, else an empty one.
    ///
    /// # Errors
    /// `ERR_IO` for a file that cannot be read, and those of [`parse`](Self::parse), which then name the file.
    pub fn for_device(device: &str) -> Result<Self> {
        let Some(file) = std::env::var_os("MAXSIM_CUDA_TUNING").filter(|file| !file.is_empty()) else {
            return Ok(Self::committed(device).unwrap_or_default());
        };
        let name = format!("MAXSIM_CUDA_TUNING {}", file.to_string_lossy());
        let text = std::fs::read_to_string(&file).map_err(|e| Error::io(name.clone(), e))?;
        let table = Self::parse(&text).map_err(|error| match error {
            Error::Format { problem, .. } => Error::Format { what: name, problem },
            Error::Version { found, supported, .. } => Error::Version { what: name, found, supported },
            other => other,
        })?;
        if table.device != device {
            tracing::warn!("tuning table of {} used on {device}", table.device);
        }
        Ok(table)
    }

    /// Query rows of the tile that was fastest for problems like this one.
    pub(crate) fn tile(&self, problem: &Problem) -> Option<u32> {
        self.entries.iter().find(|entry| entry.class.holds(problem)).map(|entry| entry.tile)
    }

    /// Microseconds that no kernel can beat: memory and products at the device's ceilings.
    pub(crate) fn floor(&self, cost: Cost, product: Kind) -> Option<f64> {
        let ceilings = self.ceilings?;
        let tflops = match product {
            Kind::F16 | Kind::BF16 => ceilings.tflops_16_bit,
            Kind::E4M3 | Kind::I8 => ceilings.tflops_8_bit,
            // Not on the units that were measured.
            Kind::F32 => f64::INFINITY,
        };
        Some((cost.bytes as f64 / ceilings.read_gb_s / 1e3).max(cost.flops as f64 / tflops / 1e6))
    }
}

/// Classes that are worth measuring: queries of one to many tiles, in the types that are multiplied as they are.
pub fn classes(dims: &[u32]) -> Vec<ShapeClass> {
    let mut classes = Vec::new();
    for &dim in dims {
        for (dtype, scaled) in
            [("f16", false), ("bf16", false), ("bf16", true), ("fp8", true), ("int8", true)]
        {
            for rows in [32, 64, 128, 256] {
                for argmax in [false, true] {
                    let (q, d) = (dtype.to_owned(), dtype.to_owned());
                    classes.push(ShapeClass { q, d, dim, rows, argmax, scaled });
                }
            }
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::variants::device_of;

    fn entry() -> Entry {
        let class = ShapeClass {
            q: "bf16".into(),
            d: "bf16".into(),
            dim: 128,
            rows: 256,
            argmax: false,
            scaled: false,
        };
        Entry { class, tile: 64, microseconds: BTreeMap::from([(64, 10.5), (256, 12.0)]) }
    }

    fn table(entries: Vec<Entry>) -> Table {
        Table { device: "a GPU".into(), entries, ..Table::default() }
    }

    #[test]
    fn committed_tables_are_read() {
        for text in COMMITTED {
            let table = Table::parse(text).unwrap();
            assert_eq!(Table::committed(&table.device).unwrap(), table);
        }
        assert!(Table::of("NVIDIA H200").ceilings.is_some());
        assert_eq!(Table::committed("another"), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let table = Table { ceilings: Table::of("NVIDIA H200").ceilings, ..table(vec![entry()]) };
        assert_eq!(Table::parse(&table.text()).unwrap(), table);
    }

    #[test]
    fn bad_tables_are_errors_that_say_what_is_wrong() {
        let text = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value: serde_json::Value = serde_json::from_str(&table(vec![entry()]).text()).unwrap();
            change(&mut value);
            value.to_string()
        };
        let code = |text: &str| {
            let error = Table::parse(text).unwrap_err();
            (error.code().as_str(), error.to_string())
        };
        assert_eq!(code("").0, "ERR_FORMAT");
        assert_eq!(code("{}").0, "ERR_FORMAT");
        assert_eq!(code("[1]").0, "ERR_FORMAT");
        assert_eq!(code(&text(&|v| v["version"] = 2.into())).0, "ERR_VERSION");
        type Change = fn(&mut serde_json::Value);
        let changes: [(Change, &str); 10] = [
            // Half of the rows that are added up together.
            (|v| v["entries"][0]["tile"] = 16.into(), "16 rows"),
            (|v| v["entries"][0]["tile"] = 48.into(), "48"),
            (|v| v["entries"][0]["tile"] = "64".into(), "expected u32"),
            (|v| v["entries"][0]["class"]["rows"] = 33.into(), "33 rows"),
            (|v| v["entries"][0]["class"]["dim"] = 0.into(), "dimension 0"),
            (|v| v["entries"][0]["class"]["q"] = "f8".into(), "f8"),
            (|v| v["entries"][0]["class"]["warps"] = 4.into(), "warps"),
            (|v| v["entries"][0]["microseconds"]["64"] = (-1.0).into(), "positive"),
            (|v| v["entries"] = vec![v["entries"][0].clone(); 2].into(), "already"),
            (
                |v| {
                    v["ceilings"] =
                        serde_json::json!({ "read_gb_s": 0, "tflops_16_bit": 1, "tflops_8_bit": 1 })
                },
                "ceiling",
            ),
        ];
        for (change, says) in changes {
            let (code, problem) = code(&text(&change));
            assert_eq!(code, "ERR_FORMAT", "{says}");
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn an_entry_chooses_the_tile_of_its_class_alone() {
        let plain = device_of("sm_90a").unwrap();
        let tuned = Caps { tuning: Arc::new(table(vec![entry()])), ..plain.clone() };
        let problem = Problem { rows: 4096, ..entry().class.problem().unwrap() };
        assert_eq!(Scorer::choose(&plain, &problem).rows(), 256);
        assert_eq!(Scorer::choose(&tuned, &problem).rows(), 64);
        for other in [
            Problem { rows: 128, ..problem },
            Problem { dim: 96, ..problem },
            Problem { scaled: true, ..problem },
            Problem { listed: true, ..problem },
            Problem { purpose: Use::Scores { argmax: true }, ..problem },
            Problem { purpose: Use::Store, ..problem },
        ] {
            assert_eq!(Scorer::choose(&tuned, &other).unit(), Scorer::choose(&plain, &other).unit());
        }
    }

    #[test]
    fn floors_are_those_of_memory_or_products() {
        let table = Table::of("NVIDIA H200");
        // 1,000 documents of 300 tokens of 128 bf16 elements, and one query of 32 tokens.
        let cost = Cost { bytes: 76_800_000, flops: 2 * 32 * 300_000 * 128 };
        let floor = table.floor(cost, Kind::BF16).unwrap();
        assert!((floor - 76.8e6 / 4.31e6).abs() < 0.1, "{floor}");
        let cost = Cost { bytes: 1, flops: 775_000_000 };
        assert!((table.floor(cost, Kind::BF16).unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(Table::default().floor(cost, Kind::BF16), None);
    }

    proptest! {
        /// Whatever a table says, there is a kernel of the same family, no taller than it needs to be.
        #[test]
        fn every_table_is_legal(
            tile in proptest::sample::select(TILES.to_vec()),
            class in proptest::sample::select(classes(&[48, 128, 320, 1024])),
            target in proptest::sample::select(vec!["sm_75", "sm_80", "sm_89", "sm_90a"]),
        ) {
            let plain = device_of(target).unwrap();
            let problem = class.problem().unwrap();
            let candidates = class.candidates(&plain).unwrap();
            prop_assert!(!candidates.is_empty());
            prop_assume!(class.allows(tile));
            let entry = Entry { class, tile, microseconds: BTreeMap::new() };
            let tuned = Caps { tuning: Arc::new(table(vec![entry])), ..plain.clone() };
            let (chosen, usual) = (Scorer::choose(&tuned, &problem), Scorer::choose(&plain, &problem));
            prop_assert_eq!(chosen.name(), usual.name());
            prop_assert!(chosen.rows() <= usual.rows());
            prop_assert!(candidates.contains(&chosen.rows()), "{:?} {}", candidates, chosen.rows());
            prop_assert!(chosen.shared() <= plain.shared_block);
        }
    }
}
