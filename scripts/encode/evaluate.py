"""nDCG@10 of the shipped model on the Cranfield 1400 collection, by plain MaxSim.

    python evaluate.py ../../crates/encode/assets/static-en-128.bin FOLDER_WITH_CRANFIELD
"""

import struct
import sys
from pathlib import Path

import numpy as np
import teacher
from cranfield import relevant, texts


def read_model(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Tokens, query weights and unit vectors."""
    data = path.read_bytes()
    _, dim, tokens, name, text = struct.unpack("<5I", data[8:28])
    at = 28 + name + text
    rows = np.frombuffer(data[at + 4 * tokens :], np.int8).reshape(tokens, dim).astype(np.float32)
    vocabulary = data[28 + name : at].decode().split("\n")
    weights = np.frombuffer(data[at : at + 4 * tokens], "<f4")
    return vocabulary, weights, rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main(model: Path, folder: Path) -> None:
    """Prints the mean over all queries."""
    vocabulary, weights, vectors = read_model(model)
    ids = {token: i for i, token in enumerate(vocabulary)}
    tok = teacher.tokenizer()

    def encode(text: str) -> np.ndarray:
        return np.array([ids[t] for t in tok.encode(text, add_special_tokens=False).tokens if t in ids], int)

    # A maximum does not care how often a token is there. Empty documents (there are two) get a full stop.
    documents = [np.unique(encode(t + " .")) for t in texts(folder / "cran.all.1400")]
    starts = np.cumsum([0] + [len(d) for d in documents[:-1]])
    flat = np.concatenate(documents)
    judged, gains = relevant(folder / "cranqrel"), []
    for number, text in enumerate(texts(folder / "cran.qry")):
        query = encode(text)
        similarity = (vectors[query] * weights[query, None]) @ vectors.T
        scores = np.maximum.reduceat(similarity[:, flat], starts, axis=1).sum(0)
        hits = [d in judged[number] for d in np.argsort(-scores, kind="stable")[:10]]
        discount = 1 / np.log2(np.arange(10) + 2)
        gains.append((discount * hits).sum() / discount[: len(judged[number])].sum())
    print(f"nDCG@10 {np.mean(gains):.4f} over {len(gains)} queries")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
