"""Writes `crates/encode/src/unicode_tables.rs`: what BERT's uncased normaliser does to single characters.

The reference tokenizer itself is asked, character by character, so the tables agree with it by construction, whatever
Unicode version it was built with. Lower-casing that Rust's `char::to_lowercase` does the same way is left out, as are
Hangul syllables, which decompose by arithmetic.

    python unicode_tables.py ../../crates/encode/src/unicode_tables.rs
"""

import sys
from pathlib import Path

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer


def ranges(points: list[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers, both ends included."""
    out: list[list[int]] = []
    for p in points:
        if out and out[-1][1] == p - 1:
            out[-1][1] = p
        else:
            out.append([p, p])
    return [(a, b) for a, b in out]


def table(doc: str, name: str, kind: str, entries: list[str]) -> str:
    """A `const` slice in lines of at most 110 characters."""
    lines, line = [], "   "
    for entry in entries:
        if len(line) + len(entry) + 2 > 110:
            lines.append(line)
            line = "   "
        line += f" {entry},"
    lines.append(line)
    return f"\n/// {doc}\npub(crate) const {name}: &[{kind}] = &[\n" + "\n".join(lines) + "\n];\n"


def main(target: Path) -> None:
    """Asks about every character."""
    normalizer, splitter = BertNormalizer(), BertPreTokenizer()
    dropped, punctuation, single, several = [], [], [], []
    for p in range(0x110000):
        if 0xD800 <= p <= 0xDFFF or 0xAC00 <= p <= 0xD7A3:
            continue
        c = chr(p)
        out = normalizer.normalize_str(f"a{c}a")[1:-1]
        if out == "":
            dropped.append(p)
            continue
        out = out.strip(" ")  # spaces around ideographs; spaces themselves
        if len(splitter.pre_tokenize_str(f"a{c}a")) == 3:
            punctuation.append(p)
        if out and out not in (c, c.lower()):
            if len(out) == 1:
                single.append((p, ord(out)))
            else:
                several.append((p, out))
    text = '//! Made by `scripts/encode/unicode_tables.py`: what BERT\'s uncased normaliser does to single characters.\n'
    text += table(
        "Control, format, private and unassigned characters and non-spacing marks, which are removed; ranges.",
        "DROPPED",
        "(u32, u32)",
        [f"({a:#x}, {b:#x})" for a, b in ranges(dropped)],
    )
    text += table(
        "Punctuation, each of which is a word; ranges.",
        "PUNCTUATION",
        "(u32, u32)",
        [f"({a:#x}, {b:#x})" for a, b in ranges(punctuation)],
    )
    text += table(
        "Characters that become one other character.", "ONE", "(u32, u32)", [f"({a:#x}, {b:#x})" for a, b in single]
    )
    text += table(
        "Characters that become several.",
        "SEVERAL",
        "(u32, &str)",
        [f'({a:#x}, "' + "".join(f"\\u{{{ord(x):x}}}" for x in s) + '")' for a, s in several],
    )
    target.write_text(text)
    print(len(ranges(dropped)), "dropped,", len(ranges(punctuation)), "punctuation,", len(single), "+", len(several))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
