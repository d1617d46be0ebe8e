//! Metadata of documents: typed columns, and filters over them.

mod columns;
mod filter;
mod value;

pub use columns::Columns;
pub(crate) use columns::{ColumnsBuilder, Schema};
pub use filter::Filter;
pub use value::{ColumnType, Row, Value};
