"""Cuts the first documents out of PLAID indexes.

    python3 slice.py DIRECTORY...

writes a directory of the same name next to this script for each. Documents keep their codes' meaning, residual bytes and
source vectors; centroids that no kept token uses are left out and the others renumbered; tables are copied. Nothing else is
computed. Headers keep their wording and padding, zero rows behind the last document included, because readers must manage
both. Only the standard library is needed.
"""

import ast
import json
import math
import pathlib
import re
import struct
import sys

LIMIT = 300_000
DOCUMENTS = 12
COPIED = ["bucket_cutoffs.npy", "bucket_weights.npy"]
SIZES = {"<f2": 2, "<f4": 4, "<i8": 8, "|u1": 1, "<u1": 1}


class Npy:
    """A version 1 array: the text of its header, and its rows as bytes."""

    def __init__(self, path):
        data = path.read_bytes()
        assert data[:8] == b"\x93NUMPY\x01\x00", path
        (length,) = struct.unpack("<H", data[8:10])
        self.header = data[10 : 10 + length].decode()
        fields = ast.literal_eval(self.header.strip())
        assert not fields["fortran_order"]
        self.count, *self.row_shape = fields["shape"]
        width = SIZES[fields["descr"]] * math.prod(self.row_shape)
        body = data[10 + length :]
        assert len(body) == width * self.count, path
        self.rows = [body[i * width : (i + 1) * width] for i in range(self.count)]

    def write(self, path, rows):
        header = re.sub(r"\('?\d+", f"({len(rows)}", self.header, count=1).rstrip()
        header = (header + " " * len(self.header))[: len(self.header) - 1] + "\n"
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"".join(rows)
        path.write_bytes(data)


def cut(source, target):
    target.mkdir(exist_ok=True)
    doclens = json.loads((source / "doclens.0.json").read_text())[:DOCUMENTS]
    tokens = sum(doclens)
    codes = Npy(source / "merged_codes.npy")
    residuals = Npy(source / "merged_residuals.npy")
    centroids = Npy(source / "centroids.npy")
    docs = Npy(source / "docs_f16.npy")
    numbers = [struct.unpack("<q", row)[0] for row in codes.rows[:tokens]]
    used = sorted(set(numbers))
    place = {code: i for i, code in enumerate(used)}
    # Readers stride over documents of the longest length, so the last one is filled up with zeros.
    behind = max(doclens) - doclens[-1]
    zero = bytes(len(residuals.rows[0]))
    codes.write(target / "merged_codes.npy", [struct.pack("<q", place[n]) for n in numbers] + [bytes(8)] * behind)
    residuals.write(target / "merged_residuals.npy", residuals.rows[:tokens] + [zero] * behind)
    centroids.write(target / "centroids.npy", [centroids.rows[code] for code in used])
    docs.write(target / "docs_f16.npy", docs.rows[:tokens])
    (target / "doclens.0.json").write_text(json.dumps(doclens, separators=(",", ":")))
    for name in COPIED:
        (target / name).write_bytes((source / name).read_bytes())
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target.name}: {len(doclens)} documents, {tokens} tokens, {len(used)} centroids, {size} bytes")
    return size


def main():
    sources = [pathlib.Path(argument) for argument in sys.argv[1:]]
    if not sources:
        sys.exit(__doc__)
    here = pathlib.Path(__file__).resolve().parent
    total = sum(cut(source, here / source.resolve().name) for source in sources)
    if total > LIMIT:
        sys.exit(f"{total} bytes, more than {LIMIT}")


main()
