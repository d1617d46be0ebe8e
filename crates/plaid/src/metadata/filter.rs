//! Filters: expressions over metadata, in a small part of SQL.
//!
//! ```text
//! or        = and { "OR" and }
//! and       = not { "AND" not }
//! not       = "NOT" not | "(" or ")" | test
//! test      = column ( "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) value
//!           | column [ "NOT" ] "IN" "(" [ value { "," value } ] ")"
//!           | column [ "NOT" ] "LIKE" value
//!           | column [ "NOT" ] "BETWEEN" value "AND" value
//!           | column "IS" [ "NOT" ] "NULL"
//! column    = letter or "_" { letter, digit or "_" } | '"' any characters, '"' doubled '"'
//! value     = number | "'" any characters, "'" doubled "'" | "TRUE" | "FALSE" | "NULL" | "?"
//! ```
//!
//! Keywords are of any case, column names are not. A test of a null is neither true nor false, `NOT` leaves it so, and a
//! document is chosen if the whole is true, as in SQL. `LIKE` knows `%` (any characters) and `_` (one) and takes ASCII letters of
//! either case as equal, as SQLite does. Texts compare by their UTF-8 bytes, integers and floats exactly.

use std::cmp::Ordering;

use maxsim_core::plaid::Bitmap;
use maxsim_core::{Error, Result};

use super::columns::{Cell, Columns, Schema};
use super::value::{ColumnType, Value, compare_numbers};

/// Parentheses and `NOT`s within each other.
const MAX_DEPTH: usize = 64;
/// Bytes of an expression.
const MAX_LENGTH: usize = 1 << 16;

/// A parsed filter with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    root: Node,
    columns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Test { column: usize, test: Test },
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Compare(Comparison, Value),
    In(Vec<Value>),
    Like(Value),
    Between(Value, Value),
    IsNull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Unequal => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }
}

impl Filter {
    /// Parses an expression whose `?` stand for `parameters`, in their order.
    ///
    /// # Errors
    /// `ERR_VALUE` (argument `filter`) with the position for an expression that is none, `ERR_LIMIT` for one too long or
    /// nested too deep, `ERR_SHAPE` (argument `parameters`) for another number of them than of `?`.
    pub fn parse(expression: &str, parameters: &[Value]) -> Result<Self> {
        if expression.len() > MAX_LENGTH {
            return Err(limit(format!("{MAX_LENGTH} bytes"), format!("{} bytes", expression.len())));
        }
        let tokens = tokenize(expression)?;
        let mut parser =
            Parser { expression, tokens: &tokens, at: 0, parameters, used: 0, columns: Vec::new(), depth: 0 };
        let root = parser.any()?;
        if parser.at < tokens.len() {
            return Err(parser.unexpected("AND, OR or the end"));
        }
        if parser.used != parameters.len() {
            let expected = format!("{} for as many question marks", parser.used);
            return Err(Error::shape("parameters", expected, parameters.len().to_string()));
        }
        Ok(Self { root, columns: parser.columns })
    }

    /// Checks that the columns exist and hold what they are compared with.
    ///
    /// # Errors
    /// `ERR_VALUE` (argument `filter`).
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        for name in &self.columns {
            if schema.find(name).is_none() {
                let known: Vec<&str> = schema.columns().iter().map(|(name, _)| &name[..]).collect();
                let expected = match known.is_empty() {
                    true => "no column: the index has no metadata".to_owned(),
                    false => format!("a column of the index ({})", known.join(", ")),
                };
                return Err(Error::value("filter", expected, format!("{name:?}")));
            }
        }
        self.check_node(&self.root, schema)
    }

    fn check_node(&self, node: &Node, schema: &Schema) -> Result<()> {
        match node {
            Node::Any(nodes) | Node::All(nodes) => nodes.iter().try_for_each(|n| self.check_node(n, schema)),
            Node::Not(node) => self.check_node(node, schema),
            Node::Test { column, test } => {
                let name = &self.columns[*column];
                let at = schema.find(name).expect("checked before");
                let column = schema.columns()[at].1;
                let fits = |value: &Value| match value.column_type() {
                    None => true,
                    Some(ColumnType::Int | ColumnType::Float) => {
                        matches!(column, ColumnType::Int | ColumnType::Float)
                    }
                    Some(other) => other == column,
                };
                let fail = |got: String| {
                    Err(Error::value("filter", format!("{name:?} compared with {column} values"), got))
                };
                let value = |value: &Value| if fits(value) { Ok(()) } else { fail(value.to_string()) };
                match test {
                    Test::Compare(comparison, x) => {
                        let ordered = !matches!(comparison, Comparison::Equal | Comparison::Unequal);
                        if ordered && column == ColumnType::Bool {
                            return fail("an order, which booleans have none of".to_owned());
                        }
                        value(x)
                    }
                    Test::In(values) => values.iter().try_for_each(value),
                    Test::Like(_) if column != ColumnType::Text => {
                        fail("LIKE, which is for texts".to_owned())
                    }
                    Test::Like(x) => value(x),
                    Test::Between(..) if column == ColumnType::Bool => fail("BETWEEN".to_owned()),
                    Test::Between(low, high) => value(low).and_then(|()| value(high)),
                    Test::IsNull => Ok(()),
                }
            }
        }
    }

    /// The documents of a segment for which it is true.
    pub(crate) fn evaluate(&self, columns: &Columns) -> Bitmap {
        let places: Vec<Option<usize>> = self.columns.iter().map(|name| columns.find(name)).collect();
        let cell = |column: usize, row: usize| columns.cell(places[column]?, row);
        let chosen = (0..columns.rows()).filter(|&row| holds(&self.root, row, &cell) == Some(true));
        Bitmap::of(columns.rows(), chosen).expect("numbers below the length")
    }
}

/// Whether a node is true for a row; `None` where nulls leave it open.
fn holds<'a>(node: &Node, row: usize, cell: &impl Fn(usize, usize) -> Option<Cell<'a>>) -> Option<bool> {
    match node {
        // The first node that decides does; otherwise the whole is open if any part is.
        Node::Any(nodes) => decided(nodes, row, cell, true),
        Node::All(nodes) => decided(nodes, row, cell, false),
        Node::Not(node) => holds(node, row, cell).map(|x| !x),
        Node::Test { column, test: Test::IsNull } => Some(cell(*column, row).is_none()),
        Node::Test { column, test } => {
            let cell = cell(*column, row)?;
            match test {
                Test::Compare(comparison, value) => Some(comparison.holds(compare(cell, value)?)),
                Test::In(values) => {
                    let mut open = false;
                    for value in values {
                        match compare(cell, value) {
                            Some(Ordering::Equal) => return Some(true),
                            Some(_) => {}
                            None => open = true,
                        }
                    }
                    if open { None } else { Some(false) }
                }
                Test::Like(pattern) => match (cell, pattern) {
                    (Cell::Text(text), Value::Text(pattern)) => Some(like(text, pattern.as_bytes())),
                    _ => None,
                },
                Test::Between(low, high) => {
                    let above = compare(cell, low).map(Ordering::is_ge);
                    let below = compare(cell, high).map(Ordering::is_le);
                    match (above, below) {
                        (Some(false), _) | (_, Some(false)) => Some(false),
                        (Some(true), Some(true)) => Some(true),
                        _ => None,
                    }
                }
                Test::IsNull => unreachable!("an arm above"),
            }
        }
    }
}

fn decided<'a>(
    nodes: &[Node],
    row: usize,
    cell: &impl Fn(usize, usize) -> Option<Cell<'a>>,
    by: bool,
) -> Option<bool> {
    let mut result = Some(!by);
    for node in nodes {
        match holds(node, row, cell) {
            Some(x) if x == by => return Some(by),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

/// Order of a cell and a value of a type that fits it; `None` for null.
fn compare(cell: Cell<'_>, value: &Value) -> Option<Ordering> {
    match (cell, value) {
        (Cell::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Cell::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Cell::Int(a), Value::Float(b)) => compare_numbers(a, *b),
        (Cell::Float(a), Value::Int(b)) => compare_numbers(*b, a).map(Ordering::reverse),
        (Cell::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Cell::Text(a), Value::Text(b)) => Some(a.cmp(b.as_bytes())),
        _ => None,
    }
}

/// Whether `text` matches `pattern`, both UTF-8. Goes back to the last `%` only, so it takes `O(text · pattern)` at most.
fn like(text: &[u8], pattern: &[u8]) -> bool {
    let character = |bytes: &[u8], at: usize| {
        at + 1 + bytes[at + 1..].iter().take_while(|&&b| b & 0b1100_0000 == 0b1000_0000).count()
    };
    let (mut t, mut p) = (0, 0);
    // Where to go on if what follows the last `%` does not match: pattern behind it, text one character later.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            None if t == text.len() => return true,
            None => false,
            Some(b'%') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'_') if t < text.len() => {
                t = character(text, t);
                true
            }
            Some(b) => {
                let same = text.get(t).is_some_and(|x| x.eq_ignore_ascii_case(b));
                t += usize::from(same);
                same
            }
        };
        if step {
            p += 1;
            continue;
        }
        match &mut retry {
            Some((after, from)) if *from < text.len() => {
                *from = character(text, *from);
                (p, t) = (*after, *from);
            }
            _ => return false,
        }
    }
}

// --- parsing --------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A keyword or a column's name.
    Word(String),
    /// A column's name in quotes.
    Quoted(String),
    Literal(Value),
    Symbol(&'static str),
}

fn limit(limit: String, got: String) -> Error {
    Error::Limit { argument: "filter".into(), limit, got }
}

const SYMBOLS: [&str; 13] = ["<=", ">=", "!=", "<>", "==", "=", "<", ">", "(", ")", ",", "?", "-"];

/// Tokens with the position of their first byte.
fn tokenize(expression: &str) -> Result<Vec<(usize, Token)>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = expression[at..].chars().next() {
        let rest = &expression[at..];
        let fail = |expected: &str| {
            let got: String = rest.chars().take(16).collect();
            Err(Error::value("filter", format!("{expected} at byte {at}"), format!("{got:?}")))
        };
        let length = |inside: fn(char) -> bool| rest.find(|c| !inside(c)).unwrap_or(rest.len());
        let (token, len) = match first {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '\'' | '"' => {
                let Some((text, len)) = quoted(rest, first) else {
                    return fail("a closing quote for the one");
                };
                let token =
                    if first == '"' { Token::Quoted(text) } else { Token::Literal(Value::Text(text)) };
                (token, len)
            }
            c if c.is_ascii_digit() || c == '.' => {
                let mut len = length(|c| c.is_ascii_alphanumeric() || c == '.');
                // A sign belongs to the number behind an exponent only.
                if rest[..len].ends_with(['e', 'E']) && rest[len..].starts_with(['+', '-']) {
                    let tail = &rest[len + 1..];
                    len += 1 + tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
                }
                let Some(value) = number(&rest[..len]) else { return fail("a number") };
                (Token::Literal(value), len)
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let len = length(|c| c.is_ascii_alphanumeric() || c == '_');
                (Token::Word(rest[..len].to_owned()), len)
            }
            _ => match SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
                Some(symbol) => (Token::Symbol(symbol), symbol.len()),
                None => return fail("a column, a value or an operator"),
            },
        };
        tokens.push((at, token));
        at += len;
    }
    Ok(tokens)
}

fn number(text: &str) -> Option<Value> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        // Beyond 64 bits it is compared as the float nearest to it.
        return text.parse().map(Value::Int).ok().or_else(|| float(text).map(Value::Float));
    }
    float(text).map(Value::Float)
}

/// The finite number nearest to a decimal one.
fn float(text: &str) -> Option<f64> {
    // The parsers take words as well ("inf", "0x10").
    let decimal = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    crate::number::read(text).filter(|x| decimal && x.is_finite())
}

/// Text in quotes at the start of `rest`, and how long it is there. Doubled quotes stand for one.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((i, c)) = characters.next() {
        if c != quote {
            text.push(c);
        } else if characters.next_if(|&(_, next)| next == quote).is_some() {
            text.push(quote);
        } else {
            return Some((text, i + 1));
        }
    }
    None
}

struct Parser<'a> {
    expression: &'a str,
    tokens: &'a [(usize, Token)],
    at: usize,
    parameters: &'a [Value],
    used: usize,
    columns: Vec<String>,
    depth: usize,
}

const KEYWORDS: [&str; 11] =
    ["AND", "OR", "NOT", "IN", "LIKE", "BETWEEN", "IS", "NULL", "TRUE", "FALSE", "ESCAPE"];

impl Parser<'_> {
    fn unexpected(&self, expected: &str) -> Error {
        let (at, got) = match self.tokens.get(self.at) {
            Some(&(at, _)) => (at, self.expression[at..].chars().take(16).collect::<String>()),
            None => (self.expression.len(), "the end".to_owned()),
        };
        Error::value("filter", format!("{expected} at byte {at}"), format!("{got:?}"))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found =
            matches!(self.tokens.get(self.at), Some((_, Token::Word(w))) if w.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some((_, Token::Symbol(s))) if *s == symbol);
        self.at += usize::from(found);
        found
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<()> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.unexpected(symbol)) }
    }

    fn any(&mut self) -> Result<Node> {
        let mut nodes = vec![self.all()?];
        while self.keyword("OR") {
            nodes.push(self.all()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
    }

    fn all(&mut self) -> Result<Node> {
        let mut nodes = vec![self.not()?];
        while self.keyword("AND") {
            nodes.push(self.not()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes) })
    }

    fn not(&mut self) -> Result<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(limit(
                format!("{MAX_DEPTH} parentheses and NOTs within each other"),
                "more".to_owned(),
            ));
        }
        let node = if self.keyword("NOT") {
            Node::Not(Box::new(self.not()?))
        } else if self.symbol("(") {
            let node = self.any()?;
            self.expect_symbol(")")?;
            node
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn test(&mut self) -> Result<Node> {
        let column = self.column()?;
        if self.keyword("IS") {
            let negated = self.keyword("NOT");
            if !self.keyword("NULL") {
                return Err(self.unexpected("NULL"));
            }
            return Ok(negate(negated, Node::Test { column, test: Test::IsNull }));
        }
        for (symbol, comparison) in [
            ("=", Comparison::Equal),
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<>", Comparison::Unequal),
            ("<", Comparison::Less),
            ("<=", Comparison::AtMost),
            (">", Comparison::Greater),
            (">=", Comparison::AtLeast),
        ] {
            if self.symbol(symbol) {
                let value = self.value()?;
                return Ok(Node::Test { column, test: Test::Compare(comparison, value) });
            }
        }
        let negated = self.keyword("NOT");
        let test = if self.keyword("IN") {
            self.expect_symbol("(")?;
            let mut values = Vec::new();
            if !self.symbol(")") {
                values.push(self.value()?);
                while self.symbol(",") {
                    values.push(self.value()?);
                }
                self.expect_symbol(")")?;
            }
            Test::In(values)
        } else if self.keyword("LIKE") {
            Test::Like(self.value()?)
        } else if self.keyword("BETWEEN") {
            let low = self.value()?;
            if !self.keyword("AND") {
                return Err(self.unexpected("AND"));
            }
            Test::Between(low, self.value()?)
        } else if negated {
            return Err(self.unexpected("IN, LIKE or BETWEEN"));
        } else {
            return Err(self.unexpected("a comparison"));
        };
        Ok(negate(negated, Node::Test { column, test }))
    }

    fn column(&mut self) -> Result<usize> {
        let name = match self.tokens.get(self.at) {
            Some((_, Token::Word(w))) if !KEYWORDS.iter().any(|k| w.eq_ignore_ascii_case(k)) => w,
            Some((_, Token::Quoted(name))) => name,
            _ => return Err(self.unexpected("a column")),
        };
        self.at += 1;
        Ok(self.columns.iter().position(|c| c == name).unwrap_or_else(|| {
            self.columns.push(name.clone());
            self.columns.len() - 1
        }))
    }

    fn value(&mut self) -> Result<Value> {
        for (keyword, value) in
            [("NULL", Value::Null), ("TRUE", Value::Bool(true)), ("FALSE", Value::Bool(false))]
        {
            if self.keyword(keyword) {
                return Ok(value);
            }
        }
        if self.symbol("?") {
            self.used += 1;
            // One too few is noticed at the end, where all question marks are counted.
            let value = self.parameters.get(self.used - 1).cloned().unwrap_or(Value::Null);
            if let Value::Float(x) = value
                && !x.is_finite()
            {
                return Err(Error::index(
                    "parameters",
                    self.used - 1,
                    "a finite number",
                    crate::number::written(x),
                ));
            }
            return Ok(value);
        }
        let negative = self.symbol("-");
        match self.tokens.get(self.at) {
            Some((_, Token::Literal(value))) => {
                let value = match (negative, value) {
                    (true, Value::Int(x)) => Value::Int(-x),
                    // −2⁶³, whose magnitude is no integer of 64 bits.
                    (true, Value::Float(x)) if *x == -(i64::MIN as f64) => Value::Int(i64::MIN),
                    (true, Value::Float(x)) => Value::Float(-x),
                    (true, _) => return Err(self.unexpected("a number")),
                    (false, value) => value.clone(),
                };
                self.at += 1;
                Ok(value)
            }
            _ => Err(self.unexpected("a value")),
        }
    }
}

fn negate(negated: bool, node: Node) -> Node {
    if negated { Node::Not(Box::new(node)) } else { node }
}

#[cfg(test)]
mod tests {
    use super::super::columns::ColumnsBuilder;
    use super::*;

    fn documents() -> (Schema, Columns) {
        let row = |year: Option<i64>, price: Option<f64>, name: Option<&str>, old: Option<bool>| {
            vec![
                ("year".to_owned(), year.map_or(Value::Null, Value::Int)),
                ("price".to_owned(), price.map_or(Value::Null, Value::Float)),
                ("full name".to_owned(), name.map_or(Value::Null, |x| Value::Text(x.to_owned()))),
                ("old".to_owned(), old.map_or(Value::Null, Value::Bool)),
            ]
        };
        let rows = [
            row(Some(1990), Some(1.5), Some("Grüße"), Some(true)),
            row(Some(2000), None, Some("100% it's"), Some(false)),
            row(None, Some(-2.0), None, None),
            row(Some(-5), Some(3.0), Some(""), Some(true)),
        ];
        let mut schema = Schema::default();
        schema.extend(&rows).unwrap();
        let mut columns = ColumnsBuilder::default();
        rows.iter().for_each(|row| columns.push(&schema, row));
        (schema, columns.finish())
    }

    fn chosen(expression: &str, parameters: &[Value]) -> Result<Vec<usize>> {
        let (schema, columns) = documents();
        let filter = Filter::parse(expression, parameters)?;
        filter.check(&schema)?;
        Ok(filter.evaluate(&columns).iter().collect())
    }

    #[test]
    fn documents_are_chosen_as_sql_chooses_rows() {
        for (expression, expected) in [
            ("year = 1990", &[0][..]),
            ("year == 1990.0", &[0]),
            ("year != 1990", &[1, 3]),
            ("year <> 1990", &[1, 3]),
            ("year < 2000", &[0, 3]),
            ("year <= 2000", &[0, 1, 3]),
            ("year > -5", &[0, 1]),
            ("year >= - 5", &[0, 1, 3]),
            ("price > 1.25e0", &[0, 3]),
            ("price = 3", &[3]),
            ("price >= -2e+0 and price <= .15e1", &[0, 2]),
            ("old = TRUE", &[0, 3]),
            ("old != true", &[1]),
            ("old in (false, true)", &[0, 1, 3]),
            ("year IN (1990, 2000)", &[0, 1]),
            ("year NOT IN (1990)", &[1, 3]),
            // An unknown member leaves it open whether others are in the list.
            ("year NOT IN (1990, NULL)", &[]),
            ("year IN (1990, NULL)", &[0]),
            ("year IN ()", &[]),
            ("year NOT IN ()", &[0, 1, 3]),
            ("year BETWEEN -5 AND 1990", &[0, 3]),
            ("year NOT BETWEEN -5 AND 1990", &[1]),
            ("year BETWEEN 1995 AND NULL", &[]),
            ("year NOT BETWEEN 1995 AND NULL", &[0, 3]),
            ("year IS NULL", &[2]),
            ("year is not null", &[0, 1, 3]),
            ("year = NULL", &[]),
            ("NOT year = 1990", &[1, 3]),
            ("NOT (year = 1990 OR old = FALSE)", &[3]),
            ("year IS NULL OR old = true", &[0, 2, 3]),
            // AND binds more tightly than OR.
            ("year = 1990 OR year = 2000 AND old = true", &[0]),
            ("(year = 1990 OR year = 2000) AND old = true", &[0]),
            ("old = true OR old IS NULL AND price = -2", &[0, 2, 3]),
            ("\"full name\" = ''", &[3]),
            ("\"full name\" = '100% it''s'", &[1]),
            ("\"full name\" > 'A'", &[0]),
            ("\"full name\" LIKE 'gr__e'", &[0]),
            ("\"full name\" LIKE 'gr_e'", &[]),
            ("\"full name\" LIKE '%'", &[0, 1, 3]),
            ("\"full name\" NOT LIKE '%it%'", &[0, 3]),
            ("\"full name\" LIKE 'GRüßE'", &[0]),
            ("\"full name\" LIKE 'GRÜßE'", &[]),
            ("\"full name\" LIKE NULL", &[]),
        ] {
            assert_eq!(chosen(expression, &[]).unwrap(), expected, "{expression}");
        }
    }

    #[test]
    fn parameters_stand_for_question_marks() {
        let text = |x: &str| Value::Text(x.to_owned());
        let found = chosen("year > ? AND \"full name\" LIKE ?", &[Value::Int(0), text("%'%")]).unwrap();
        assert_eq!(found, [1]);
        // A parameter is never read as an expression.
        assert_eq!(chosen("\"full name\" = ?", &[text("' OR 1 = 1")]).unwrap(), [0usize; 0]);
        assert_eq!(chosen("year = ?", &[Value::Null]).unwrap(), [0usize; 0]);
        for (expression, parameters) in [("year = ?", 0), ("year = 1", 1), ("year IN (?, ?)", 1)] {
            let error = chosen(expression, &vec![Value::Int(1); parameters]).unwrap_err();
            assert_eq!(error.argument(), Some("parameters"), "{expression}");
        }
        assert!(chosen("price = ?", &[Value::Float(f64::NAN)]).is_err());
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_position() {
        for (expression, message) in [
            ("", r#"filter: expected a column at byte 0, got "the end""#),
            ("year", r#"filter: expected a comparison at byte 4, got "the end""#),
            ("year = ", r#"filter: expected a value at byte 7, got "the end""#),
            ("year = 1 year", r#"filter: expected AND, OR or the end at byte 9, got "year""#),
            (
                "year = 1; DROP",
                r#"filter: expected a column, a value or an operator at byte 8, got "; DROP""#,
            ),
            ("year = 'x", r#"filter: expected a closing quote for the one at byte 7, got "'x""#),
            ("year = 1x", r#"filter: expected a number at byte 7, got "1x""#),
            ("year = 1e999", r#"filter: expected a number at byte 7, got "1e999""#),
            ("(year = 1", r#"filter: expected ) at byte 9, got "the end""#),
            ("year NOT 3", r#"filter: expected IN, LIKE or BETWEEN at byte 9, got "3""#),
            ("year BETWEEN 1 OR 2", r#"filter: expected AND at byte 15, got "OR 2""#),
            ("year IS 3", r#"filter: expected NULL at byte 8, got "3""#),
            ("1 = year", r#"filter: expected a column at byte 0, got "1 = year""#),
            ("and = 1", r#"filter: expected a column at byte 0, got "and = 1""#),
            ("year = -'x'", r#"filter: expected a number at byte 8, got "'x'""#),
            (
                "Year = 1",
                r#"filter: expected a column of the index (year, price, full name, old), got "Year""#,
            ),
            ("year = 'x'", r#"filter: expected "year" compared with integer values, got "x""#),
            (
                "year LIKE '1%'",
                r#"filter: expected "year" compared with integer values, got LIKE, which is for texts"#,
            ),
            (
                "old < true",
                r#"filter: expected "old" compared with boolean values, got an order, which booleans have none of"#,
            ),
        ] {
            assert_eq!(chosen(expression, &[]).unwrap_err().to_string(), message, "{expression}");
        }
    }

    #[test]
    fn depth_and_length_are_limited() {
        let nested = |depth: usize| format!("{}year = 1990{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(chosen(&nested(MAX_DEPTH - 1), &[]).unwrap(), [0]);
        for expression in [
            nested(MAX_DEPTH),
            nested(10_000),
            "NOT ".repeat(10_000) + "year = 1",
            "x".repeat(MAX_LENGTH + 1),
        ] {
            assert_eq!(chosen(&expression, &[]).unwrap_err().code().as_str(), "ERR_LIMIT");
        }
        // Chains are not nested, however long.
        let chain = "year = 1990 OR ".repeat(4000) + "year = 0";
        assert_eq!(chosen(&chain, &[]).unwrap(), [0]);
    }

    #[test]
    fn integers_at_the_ends_of_their_range() {
        assert_eq!(
            Filter::parse("x = -9223372036854775808", &[]),
            Filter::parse("x = ?", &[Value::Int(i64::MIN)])
        );
        assert_eq!(chosen("year < 9223372036854775808", &[]).unwrap(), [0, 1, 3]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_filter_or_an_error(expression in "[a-z =<>!()',?\"%_0-9.e-]{0,40}|(year|NOT|AND|OR|IN|\\(|\\)|=|1| )*") {
            let _ = chosen(&expression, &[]);
        }

        #[test]
        fn like_agrees_with_its_definition(text in "[aAbß]{0,8}", pattern in "[ab%_ß]{0,6}") {
            fn naive(text: &[char], pattern: &[char]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some(('%', rest)) => (0..=text.len()).any(|i| naive(&text[i..], rest)),
                    Some((p, rest)) => text.split_first().is_some_and(|(t, after)| {
                        (*p == '_' || t.eq_ignore_ascii_case(p)) && naive(after, rest)
                    }),
                }
            }
            let (t, p): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
            proptest::prop_assert_eq!(like(text.as_bytes(), pattern.as_bytes()), naive(&t, &p));
        }
    }
}
