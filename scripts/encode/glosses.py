"""Writes the demo corpus: `word<TAB>gloss` for common English nouns, from WordNet 3.0.

A word is common when WordNet's own definitions, all 117,659 of them, use it often.

    python glosses.py /usr/share/wordnet ../../crates/encode/assets/wordnet-glosses.tsv
"""

import re
import sys
from collections import Counter
from pathlib import Path

import wordnet

LINES, BYTES = 12_000, 1_200_000


def main(folder: Path, target: Path) -> None:
    """Picks the words and writes them in alphabetical order."""
    nouns = wordnet.synsets(folder, "noun")
    used = Counter()
    for pos in wordnet.POS:
        for synset in wordnet.synsets(folder, pos).values():
            used.update(re.findall(r"[a-z]+", synset.gloss.lower()))

    lines = {}
    for lemma, offsets in wordnet.senses(folder, "noun").items():
        synset = nouns[offsets[0]]
        # Lower-case single words only (proper names are capitalised), each under its first meaning, and a meaning
        # only under the word that WordNet lists first or, of several, the one that is used most.
        plain = [w for w in synset.words if re.fullmatch(r"[a-z]{3,}", w)]
        if lemma in plain and lemma == max(plain, key=lambda w: used[w]) and len(synset.gloss) >= 12:
            lines[lemma] = synset.gloss
    chosen = sorted(lines, key=lambda w: (-used[w], w))[:LINES]
    text = "".join(f"{w}\t{lines[w]}\n" for w in sorted(chosen))
    assert len(text.encode()) <= BYTES, len(text.encode())
    target.write_text(text, encoding="utf-8")
    print(f"{len(chosen)} lines, {len(text.encode())} bytes, rarest: {used[chosen[-1]]} uses")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
