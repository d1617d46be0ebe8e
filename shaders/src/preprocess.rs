//! The preprocessor.

use crate::file;

/// Values of names.
pub(crate) type Defines = Vec<(&'static str, u32)>;

/// Hands every line of the assembled text to `each`, with the file and the line (from 1) it comes from. A line that is left
/// out, or was a directive, comes as an empty one.
///
/// `names` are values that `#if` may compare with; they become no constants. The first line holds the constants.
///
/// # Panics
/// On a file, name or directive that does not exist. All of it is embedded, and every variant is assembled by a test.
pub(crate) fn assemble(
    name: &'static str,
    header: &str,
    defines: &Defines,
    names: &[(&'static str, u32)],
    each: &mut dyn FnMut(&str, &'static str, usize),
) {
    let mut state = State { defines, names, imported: Vec::new() };
    let mut constants = String::from(header);
    for (name, value) in defines {
        constant(&mut constants, name, *value);
    }
    each(&constants, name, 0);
    state.include(name, each);
}

fn constant(to: &mut String, name: &str, value: u32) {
    to.push_str("const ");
    to.push_str(name);
    to.push_str(":u32=");
    push_number(to, value);
    to.push_str("u;");
}

/// Appends `value` in decimal; the formatting machinery is larger than this preprocessor.
pub(crate) fn push_number(to: &mut String, value: u32) {
    if value >= 10 {
        push_number(to, value / 10);
    }
    to.push(char::from(b'0' + (value % 10) as u8));
}

struct State<'a> {
    defines: &'a Defines,
    names: &'a [(&'static str, u32)],
    imported: Vec<&'static str>,
}

impl State<'_> {
    fn include(&mut self, name: &str, each: &mut dyn FnMut(&str, &'static str, usize)) {
        let (name, text) = file(name).expect("a file that exists");
        self.lines(name, 1, text, each);
    }

    /// `text` of the file `name`, from line `first`.
    fn lines(
        &mut self,
        name: &'static str,
        first: usize,
        text: &str,
        each: &mut dyn FnMut(&str, &'static str, usize),
    ) {
        // Whether lines are taken, per open `#if`; an `#if` inside a part left out is left out whole.
        let mut open: Vec<bool> = Vec::new();
        let mut lines = text.split('\n').zip(first..);
        while let Some((line, number)) = lines.next() {
            let taken = open.iter().all(|&taken| taken);
            let Some(directive) = line.strip_prefix('#') else {
                each(if taken { line } else { "" }, name, number);
                continue;
            };
            let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
            each("", name, number);
            match word {
                "if" => open.push(self.holds(rest)),
                "else" => {
                    let last = open.last_mut().expect("#else inside #if");
                    *last = !*last;
                }
                "endif" => {
                    open.pop().expect("#endif after #if");
                }
                "import" if taken => self.import(rest, each),
                "import" => {}
                "for" => {
                    let (variable, count) = rest.split_once(' ').expect("#for NAME COUNT");
                    let count = if taken { self.value(count).expect("a number or a name") } else { 0 };
                    let (mut body, mut depth) = (String::new(), 1);
                    for (line, _) in lines.by_ref() {
                        depth += i32::from(line.starts_with("#for ")) - i32::from(line == "#endfor");
                        if depth == 0 {
                            break;
                        }
                        body.push_str(line);
                        body.push('\n');
                    }
                    body.pop();
                    for value in 0..count {
                        self.lines(name, number + 1, &with(&body, variable, value), each);
                    }
                }
                _ => unreachable!("an unknown directive"),
            }
        }
        assert!(open.is_empty(), "#if without #endif");
    }

    fn import(&mut self, name: &str, each: &mut dyn FnMut(&str, &'static str, usize)) {
        let (name, _) = file(&["lib/", name].concat()).expect("a file that exists");
        if !self.imported.contains(&name) {
            self.imported.push(name);
            self.include(name, each);
        }
    }

    fn holds(&self, condition: &str) -> bool {
        match condition.split_once(" == ") {
            Some((a, b)) => self.value(a).unwrap_or(0) == self.value(b).expect("a number or a name"),
            None => self.value(condition).unwrap_or(0) != 0,
        }
    }

    fn value(&self, word: &str) -> Option<u32> {
        let named = |list: &[(&'static str, u32)]| list.iter().find(|(n, _)| *n == word).map(|(_, v)| *v);
        word.parse().ok().or_else(|| named(self.defines)).or_else(|| named(self.names))
    }
}

/// `text` with `value` for `@variable`.
fn with(text: &str, variable: &str, value: u32) -> String {
    let mut parts = text.split('@');
    let mut out = String::from(parts.next().unwrap_or(""));
    for part in parts {
        match part.strip_prefix(variable) {
            Some(rest) => {
                push_number(&mut out, value);
                out.push_str(rest);
            }
            None => {
                out.push('@');
                out.push_str(part);
            }
        }
    }
    out
}
