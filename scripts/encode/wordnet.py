"""Reading WordNet 3.0 as Debian's `wordnet-base` installs it."""

from pathlib import Path
from typing import NamedTuple

POS = ("noun", "verb", "adj", "adv")


class Synset(NamedTuple):
    """One meaning: the words for it, commonest first, and its definition without usage examples."""

    words: list[str]
    gloss: str


def synsets(folder: Path, pos: str) -> dict[int, Synset]:
    """All meanings of a part of speech by their offset (layout: wndb(5WN))."""
    out = {}
    for line in (folder / f"data.{pos}").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue  # licence header
        fields, _, gloss = line.partition(" | ")
        fields = fields.split(" ")
        count = int(fields[3], 16)
        # Adjectives carry a marker of their syntactic position, e.g. `galore(ip)`.
        words = [w.split("(")[0].replace("_", " ") for w in fields[4 : 4 + 2 * count : 2]]
        definition = gloss.split('; "')[0].strip().rstrip(";:, ")
        out[int(fields[0])] = Synset(words, definition)
    return out


def senses(folder: Path, pos: str) -> dict[str, list[int]]:
    """Offsets of a lemma's meanings, commonest first."""
    out = {}
    for line in (folder / f"index.{pos}").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            out[fields[0].replace("_", " ")] = [int(x) for x in fields[-int(fields[2]) :]]
    return out


def glosses(folder: Path) -> list[str]:
    """Every gloss with its usage examples."""
    lines = (line for pos in POS for line in (folder / f"data.{pos}").read_text(encoding="utf-8").splitlines())
    return [line.partition(" | ")[2] for line in lines if not line.startswith(" ")]
