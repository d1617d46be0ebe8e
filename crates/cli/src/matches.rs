//! Which document token answers which query token.

use maxsim::{Documents, Scales, Tokens};
use serde::Serialize;

use crate::output::{Style, columns, pad, shorten};

/// The match of one query token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Match {
    /// Position in the query.
    pub(crate) query_token: usize,
    /// Text of the query token, where the query was text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) query_text: Option<String>,
    /// Position in the document; `None` if nothing matches (masked token, empty document).
    pub(crate) document_token: Option<usize>,
    /// Text of the document token, where the document was text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) document_text: Option<String>,
    /// What the query token adds to the score.
    pub(crate) similarity: Option<f32>,
}

/// Texts of the tokens of a query and a document, where they were texts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Texts<'a> {
    /// Of the query.
    pub(crate) query: Option<&'a [String]>,
    /// Of the document.
    pub(crate) document: Option<&'a [String]>,
}

/// Matches of query `i` in document `j`, from the winners `argmax` of that pair.
pub(crate) fn matches(
    (q, i): (&Tokens<'_>, usize),
    (d, j): (&Documents<'_>, usize),
    argmax: &[i32],
    normalize: bool,
    texts: Texts<'_>,
) -> Vec<Match> {
    let (q_row, d_row) = (q.rows(i).start, d.sequences().rows(j).start);
    let one = |(s, &winner): (usize, &i32)| {
        let token = usize::try_from(winner).ok();
        let text = |texts: Option<&[String]>, at: usize| texts.and_then(|texts| texts.get(at).cloned());
        Match {
            query_token: s,
            query_text: text(texts.query, s),
            document_token: token,
            document_text: token.and_then(|t| text(texts.document, t)),
            similarity: token
                .map(|t| dot(&vector(q, q_row + s, normalize), &document_vector(d, d_row + t, normalize))),
        }
    };
    argmax.iter().enumerate().map(one).collect()
}

fn document_vector(documents: &Documents<'_>, row: usize, normalize: bool) -> Vec<f64> {
    match documents {
        Documents::Tokens(tokens) => vector(tokens, row, normalize),
        Documents::Residual(residual) => {
            let mut decoded = vec![0f32; residual.codec().dim()];
            residual.codec().decode(residual.codes()[row] as usize, residual.residual(row), &mut decoded);
            let decoded = decoded.into_iter().map(f64::from).collect();
            match residual.inv_norms() {
                Some(stored) if normalize => scaled(decoded, stored.get(row).into()),
                _ if normalize => unit(decoded),
                _ => decoded,
            }
        }
        _ => unreachable!("the command reads documents into host memory"),
    }
}

fn vector(tokens: &Tokens<'_>, row: usize, normalize: bool) -> Vec<f64> {
    let scale = f64::from(tokens.scales().as_ref().map_or(1.0, |scales: &Scales<'_>| scales.get(row)));
    let vector = scaled(tokens.vector(row).into_iter().map(f64::from).collect(), scale);
    if normalize { unit(vector) } else { vector }
}

fn unit(vector: Vec<f64>) -> Vec<f64> {
    let norm = dot_f64(&vector, &vector).sqrt().max(1e-6);
    scaled(vector, 1.0 / norm)
}

fn scaled(mut vector: Vec<f64>, factor: f64) -> Vec<f64> {
    vector.iter_mut().for_each(|x| *x *= factor);
    vector
}

fn dot(a: &[f64], b: &[f64]) -> f32 {
    dot_f64(a, b) as f32
}

fn dot_f64(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Matches side by side, in as many blocks as `width` asks for: query tokens, under them what they matched, under that
/// the similarity. `strength` says how good a match is, for the colour.
pub(crate) fn table(
    matches: &[Match],
    strength: impl Fn(&Match) -> f32,
    style: Style,
    indent: usize,
    width: usize,
) -> Vec<String> {
    let cells: Vec<([String; 3], f32, usize)> = matches
        .iter()
        .map(|m| {
            let query = m.query_text.clone().unwrap_or_else(|| format!("q{}", m.query_token));
            let document = match (&m.document_text, m.document_token) {
                (Some(text), _) => text.clone(),
                (None, Some(token)) => format!("d{token}"),
                (None, None) => "–".into(),
            };
            let similarity = m.similarity.map_or("–".into(), |s| format!("{s:.3}"));
            let cell = [shorten(&query, 28), shorten(&document, 28), similarity];
            let wide = cell.iter().map(|text| columns(text)).max().unwrap_or(0);
            (cell, strength(m), wide)
        })
        .collect();
    let mut lines = Vec::new();
    let mut rest = &cells[..];
    while !rest.is_empty() {
        let mut used = indent;
        let fitting = rest.iter().take_while(|(_, _, wide)| {
            used += wide + 2;
            used <= width + 2
        });
        let (block, later) = rest.split_at(fitting.count().max(1));
        rest = later;
        for row in 0..3 {
            let mut line = " ".repeat(indent);
            for (cell, strength, wide) in block {
                let text = pad(&cell[row], wide + 2);
                line += &match row {
                    0 => style.dim(&text),
                    _ => style.graded(*strength, &text),
                };
            }
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarities_are_those_of_the_winners() {
        let q = [3.0f32, 4.0, 1.0, 0.0];
        let d = [0.0f32, 2.0, 5.0, 0.0];
        let (q, d) = (Tokens::padded(&q, &[2, 2]).unwrap(), Tokens::padded(&d, &[2, 2]).unwrap().into());
        let plain = matches((&q, 0), (&d, 0), &[1, -1], false, Texts::default());
        assert_eq!(plain[0].similarity, Some(15.0));
        assert_eq!((plain[1].document_token, plain[1].similarity), (None, None));
        let unit = matches((&q, 0), (&d, 0), &[0, 1], true, Texts::default());
        assert_eq!((unit[0].similarity, unit[1].similarity), (Some(0.8), Some(1.0)));
    }

    #[test]
    fn tables_break_at_the_width() {
        let cell = |query_token| Match {
            query_token,
            query_text: Some("word".into()),
            document_token: Some(0),
            document_text: Some("w".into()),
            similarity: Some(0.5),
        };
        let lines = table(&[cell(0), cell(1), cell(2)], |_| 0.0, Style::plain(), 2, 15);
        assert_eq!(lines, ["  word   word", "  w      w", "  0.500  0.500", "  word", "  w", "  0.500"]);
    }
}
