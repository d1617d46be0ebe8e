//! Printing: stdout that survives a closed pipe, colour where it is wanted, progress on stderr.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Standard output. Once the reader is gone (`maxsim … | head`), what is written goes nowhere and is no error; the
/// command still decides its exit code by what it found.
pub(crate) struct Out {
    inner: BufWriter<StdoutLock<'static>>,
    closed: bool,
}

impl Out {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self { inner: BufWriter::new(io::stdout().lock()), closed: false }
    }

    /// A value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        writeln!(self, "{text}")?;
        self.flush()
    }

    fn unless_closed<T>(&mut self, result: io::Result<T>, otherwise: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(otherwise)
            }
            other => other,
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let result = self.inner.write(bytes);
        self.unless_closed(result, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let result = self.inner.flush();
        self.unless_closed(result, ())
    }
}

/// Terminal styles, empty where colour is not wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    enabled: bool,
}

impl Style {
    /// Colour only on a terminal, and not under `NO_COLOR` (<https://no-color.org>) or `TERM=dumb`.
    pub(crate) fn stdout() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { enabled: io::stdout().is_terminal() && !no_color && !dumb }
    }

    /// No styles.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { enabled: false }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.enabled { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// What matters most.
    pub(crate) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters least.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A found thing.
    pub(crate) fn hit(self, text: &str) -> String {
        self.paint("1;36", text)
    }

    /// `text` by how good a similarity in `-1..=1` is.
    pub(crate) fn graded(self, similarity: f32, text: &str) -> String {
        let code = match similarity {
            s if s >= 0.7 => "32",
            s if s >= 0.4 => "33",
            _ => "2",
        };
        self.paint(code, text)
    }
}

/// Columns of the terminal: `COLUMNS`, else what the terminal says, else 100, which fits most windows and all logs.
pub(crate) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let asked = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    columns.or_else(asked).unwrap_or(100).clamp(40, 200)
}

/// Characters of `text` as a terminal counts them, near enough for word lists: one each.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// `text` filled up with spaces to `width`. Styles are added afterwards, so that they do not count.
pub(crate) fn pad(text: &str, width: usize) -> String {
    let mut padded = text.to_owned();
    let _ = write!(padded, "{:1$}", "", width.saturating_sub(columns(text)));
    padded
}

/// `text` broken at spaces into lines of at most `width` characters; longer words stand alone.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if columns(line) + 1 + columns(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// `text` cut to `width` characters, with an ellipsis if anything is lost.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Where a text came from and as much of the text as fits beside the `used` columns of a line.
pub(crate) fn beside(text: &str, source: &str, used: usize, style: Style) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let room = width().saturating_sub(used + columns(source) + 5).max(20);
    format!("  {}  {}", style.dim(source), shorten(&flat, room))
}

/// A time in the unit that reads best.
pub(crate) fn duration(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        m if m < 1e3 => format!("{m:.0} µs"),
        m if m < 1e6 => format!("{:.1} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}

/// Bytes in the unit that reads best.
pub(crate) fn bytes(count: u64) -> String {
    match count as f64 {
        b if b < 1024.0 => format!("{b} B"),
        b if b < 1024.0 * 1024.0 => format!("{:.1} KiB", b / 1024.0),
        b if b < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", b / (1024.0 * 1024.0)),
        b => format!("{:.2} GiB", b / (1024.0 * 1024.0 * 1024.0)),
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A progress bar on stderr; hidden unless that is a terminal. It leaves nothing behind.
pub(crate) fn progress(length: usize, what: &'static str) -> ProgressBar {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(length as u64), target);
    let style = ProgressStyle::with_template("{msg:>12} {wide_bar} {human_pos}/{human_len} {eta:>4}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.with_message(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_laid_out_by_characters() {
        assert_eq!(pad("né", 4), "né  ");
        assert_eq!(pad("longer", 4), "longer");
        assert_eq!(shorten("submarine", 6), "subma…");
        assert_eq!(shorten("sub", 6), "sub");
        assert_eq!(wrap("a bc defgh i", 4), ["a bc", "defgh", "i"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn units_read_well() {
        assert_eq!(duration(Duration::from_micros(12)), "12 µs");
        assert_eq!(duration(Duration::from_micros(12_345)), "12.3 ms");
        assert_eq!(duration(Duration::from_millis(2_500)), "2.50 s");
        assert_eq!(bytes(100), "100 B");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
