"""Distils the embedded static encoder from MiniLM-L6-v2, after model2vec's method (Minish Lab, 2024).

Every vocabulary token is read alone (`[CLS] token [SEP]`), its three outputs are averaged, the mean over the vocabulary
and the strongest direction are removed, 128 principal components are kept, and rows are quantised to int8. Scales are not
stored: MaxSim needs directions only. How much a token counts in a query is a weight of its own (smooth inverse
frequency, Arora et al. 2017), from how often WordNet's glosses and their examples use it.

    pip install --no-deps -r requirements.txt
    python distil.py /usr/share/wordnet ../../crates/encode/assets/static-en-128.bin
"""

import hashlib
import struct
import sys
from pathlib import Path

import numpy as np
import teacher
import wordnet

NAME, DIM, SMOOTHING = "static-en-128", 128, 2e-4


def kept(vocabulary: list[str]) -> np.ndarray:
    """Ids of the tokens that stand for text, not `[CLS]`, `[unused0]` and the like."""
    return np.array([i for i, t in enumerate(vocabulary) if not (len(t) > 2 and t[0] == "[" and t[-1] == "]")])


def project(vectors: np.ndarray, dim: int, drop: int = 1) -> np.ndarray:
    """Principal components `drop..drop + dim` of the rows, as unit vectors."""
    centred = (vectors - vectors.mean(0)).astype(np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    axes = directions[:, np.argsort(-values)[drop : drop + dim]]
    # The sign of an eigenvector is arbitrary; fixed, so that every run writes the same file.
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    out = centred @ axes
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def weights(tokens: list[str], counts: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """`smoothing / (smoothing + probability)`.

    Definitions use words like *did* less than people do, so the probability is the larger of the counted one and that
    of Zipf's law over the vocabulary, which is sorted by frequency. Punctuation counts as little as anything.
    """
    text = np.array([any(c.isalnum() for c in t.removeprefix("##")) for t in tokens])
    counted = counts / counts[text].sum()
    # Before `the` come single characters, sorted by code point, not by frequency.
    ranked = text & (np.arange(len(tokens)) >= tokens.index("the"))
    zipf = np.zeros(len(tokens))
    zipf[ranked] = 1 / (np.arange(ranked.sum()) + 2.7)
    out = smoothing / (smoothing + np.maximum(counted, zipf / zipf.sum()))
    out[~text] = out[text].min()
    return out


def quantise(unit: np.ndarray) -> np.ndarray:
    """Rows to int8, the largest component of each to 127."""
    return np.rint(unit * (127 / np.abs(unit).max(1, keepdims=True))).astype(np.int8)


def gloss_counts(folder: Path, size: int) -> np.ndarray:
    """How often each token is used in WordNet's glosses, examples included."""
    counts = np.zeros(size, np.int64)
    for encoding in teacher.tokenizer().encode_batch(wordnet.glosses(folder), add_special_tokens=False):
        np.add.at(counts, encoding.ids, 1)
    return counts


def main(folder: Path, target: Path) -> None:
    """Writes the model file; its layout is described in `crates/encode/src/model.rs`."""
    vocabulary = teacher.vocabulary()
    ids = kept(vocabulary)
    tokens = [vocabulary[i] for i in ids]
    rows = quantise(project(teacher.isolated(teacher.Teacher(), len(vocabulary)).mean(1)[ids], DIM))
    weight = weights(tokens, gloss_counts(folder, len(vocabulary))[ids])

    name, text = NAME.encode(), "\n".join(tokens).encode()
    header = b"MAXSIMSE" + struct.pack("<5I", 1, DIM, len(tokens), len(name), len(text))
    data = header + name + text + weight.astype("<f4").tobytes() + rows.tobytes()
    target.write_bytes(data)
    print(f"{len(tokens)} tokens, {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
