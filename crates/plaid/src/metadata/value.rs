//! Values of metadata and their types.

use std::cmp::Ordering;
use std::fmt;

/// A value of a document's metadata, or a parameter of a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// A text.
    Text(String),
}

/// Metadata of one document: values by column name. Columns that are not named are null.
pub type Row = Vec<(String, Value)>;

/// Type of a column, which is that of its first value in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// `true` and `false`.
    Bool,
    /// 64-bit integers.
    Int,
    /// 64-bit floating point numbers.
    Float,
    /// Texts.
    Text,
}

impl ColumnType {
    /// As files store it.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Bool => 0,
            Self::Int => 1,
            Self::Float => 2,
            Self::Text => 3,
        }
    }

    /// The inverse of [`number`](Self::number).
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Bool, Self::Int, Self::Float, Self::Text].into_iter().find(|t| t.number() == number)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "boolean",
            Self::Int => "integer",
            Self::Float => "float",
            Self::Text => "text",
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(x) => write!(f, "{x}"),
            Self::Int(x) => write!(f, "{x}"),
            Self::Float(x) => f.write_str(&crate::number::written(*x)),
            Self::Text(x) => write!(f, "{x:?}"),
        }
    }
}

impl Value {
    /// Type of a column that begins with this value; null has none.
    pub fn column_type(&self) -> Option<ColumnType> {
        match self {
            Self::Null => None,
            Self::Bool(_) => Some(ColumnType::Bool),
            Self::Int(_) => Some(ColumnType::Int),
            Self::Float(_) => Some(ColumnType::Float),
            Self::Text(_) => Some(ColumnType::Text),
        }
    }

    /// The same value as one of the column's type: numbers change between integer and float where nothing is lost. `None` if
    /// it is no value of that type.
    pub(crate) fn coerced(&self, column: ColumnType) -> Option<Self> {
        match (self, column) {
            (Self::Null, _)
            | (Self::Bool(_), ColumnType::Bool)
            | (Self::Int(_), ColumnType::Int)
            | (Self::Text(_), ColumnType::Text) => Some(self.clone()),
            (Self::Float(x), ColumnType::Float) => x.is_finite().then_some(Self::Float(*x)),
            (&Self::Int(x), ColumnType::Float) => {
                let float = x as f64;
                (compare_numbers(x, float) == Some(Ordering::Equal)).then_some(Self::Float(float))
            }
            (&Self::Float(x), ColumnType::Int) => {
                let int = x as i64;
                (compare_numbers(int, x) == Some(Ordering::Equal)).then_some(Self::Int(int))
            }
            _ => None,
        }
    }
}

/// Compares an integer with a float, exactly. `None` for NaN.
pub(crate) fn compare_numbers(int: i64, float: f64) -> Option<Ordering> {
    const END: f64 = 9_223_372_036_854_775_808.0; // 2⁶³
    if float.is_nan() {
        None
    } else if float >= END {
        Some(Ordering::Less)
    } else if float < -END {
        Some(Ordering::Greater)
    } else {
        let whole = float.trunc();
        Some(int.cmp(&(whole as i64)).then_with(|| whole.partial_cmp(&float).expect("numbers")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_floats_compare_exactly() {
        use Ordering::{Equal, Greater, Less};
        let big = (1i64 << 53) + 1;
        for (int, float, expected) in [
            (3, 3.0, Equal),
            (3, 3.5, Less),
            (-3, -3.5, Greater),
            (0, -0.0, Equal),
            (big, 9_007_199_254_740_992.0, Greater),
            (i64::MAX, 9_223_372_036_854_775_808.0, Less),
            (i64::MIN, -9_223_372_036_854_775_808.0, Equal),
            (i64::MIN, f64::NEG_INFINITY, Greater),
        ] {
            assert_eq!(compare_numbers(int, float), Some(expected), "{int} {float}");
        }
        assert_eq!(compare_numbers(0, f64::NAN), None);
        assert_eq!(Value::Int(big).coerced(ColumnType::Float), None);
        assert_eq!(Value::Float(2.0).coerced(ColumnType::Int), Some(Value::Int(2)));
        assert_eq!(Value::Float(2.5).coerced(ColumnType::Int), None);
        assert_eq!(Value::Float(f64::INFINITY).coerced(ColumnType::Float), None);
    }
}
