"""Selects the vendored cases from whole fixture files.

    python3 select.py lik_reference.safetensors extra_reference.safetensors

writes files of the same names, in the same format, next to this script. Cases keep their names, tensors and metadata;
nothing is computed. Only the standard library is needed.

Taken are all cases of every operator but `dense` that OTHERS leaves in, and of `dense`, which has most cases: every case of
the two smallest shapes, and of three larger ones (an odd dimension, a dimension beyond 256, lengths that fill no tile) the
masked, normalised case of one element type each.
"""

import json
import pathlib
import struct
import sys

LIMIT = 3_000_000
# [Nq, Nd, Lq, Ld, d] of dense cases.
SMALL = [[1, 1, 1, 1, 8], [2, 3, 5, 7, 16], [1, 3, 4, 6, 16]]
LARGE = {(3, 4, 17, 40, 48): "f16", (2, 3, 8, 130, 37): "bf16", (2, 2, 12, 30, 320): "f32"}
# Large cases whose operator and element type a smaller one covers.
OTHERS = {"kd_003", "pairs_003", "varlen_001", "topk_001", "fp8_001", "kd_001", "residual_padded_010", "residual_padded_013"}


def wanted(name, case, tensors):
    if case["op"] != "dense":
        return name not in OTHERS
    if case["shape"] in SMALL or 0 in case["shape"]:
        return True
    masked = f"{name}/q_mask" in tensors
    return case["dtype"] == LARGE.get(tuple(case["shape"])) and case["normalize"] and masked


def select(source, target):
    data = source.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    cases = {name: case for name, case in json.loads(metadata["cases"]).items() if wanted(name, case, header)}
    body, entries = [], {}
    end = 0
    # In the order of the data, so that alignment stays what it was.
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if name.split("/", 1)[0] not in cases:
            continue
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        body.append(data[first:last])
        entries[name] = {**entry, "data_offsets": [end, end + last - first]}
        end += last - first
    metadata = {**metadata, "cases": json.dumps(cases), "selected_from": source.name}
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(body))
    print(f"{target.name}: {len(cases)} cases, {target.stat().st_size} bytes")
    return target.stat().st_size


def main():
    sources = [pathlib.Path(argument) for argument in sys.argv[1:]]
    if not sources:
        sys.exit(__doc__)
    here = pathlib.Path(__file__).resolve().parent
    total = sum(select(source, here / source.name) for source in sources)
    if total > LIMIT:
        sys.exit(f"{total} bytes, more than {LIMIT}")


main()
