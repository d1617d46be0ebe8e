"""Writes the seed files with the formats' own implementations: needs numpy, ml_dtypes and safetensors.

    python3 make.py

Files named `good_*` hold 0, 1, 2, … in row-major order (booleans: 0 false, 1 true, 0 false, …), apart from `good_scalar`
(7). Files named `bad_*` must be refused.
"""

import io
import json
import pathlib
import struct

import ml_dtypes
import numpy as np
from numpy.lib import format as npy
from safetensors.numpy import save

HERE = pathlib.Path(__file__).resolve().parent


def npy_bytes(array, version=None):
    file = io.BytesIO()
    npy.write_array(file, array, version=version)
    return file.getvalue()


def count(shape, dtype):
    return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)


def write(folder, name, data):
    (HERE / folder / name).write_bytes(data)


for dtype in ["<f8", "<f4", "<f2", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8"]:
    write("npy", f"good_{dtype[1:]}.npy", npy_bytes(count((2, 3), dtype)))
write("npy", "good_bool.npy", npy_bytes((np.arange(6) % 2).reshape(2, 3).astype(bool)))
write("npy", "good_bf16.npy", npy_bytes(count((2, 3), ml_dtypes.bfloat16)))
write("npy", "good_scalar.npy", npy_bytes(np.array(7, dtype="<f4")))
write("npy", "good_empty.npy", npy_bytes(count((0, 4), "<f4")))
write("npy", "good_fortran.npy", npy_bytes(np.asfortranarray(count((2, 3, 4), "<i4"))))
write("npy", "good_v2.npy", npy_bytes(count((5,), "<f4"), (2, 0)))
write("npy", "good_v3.npy", npy_bytes(count((5,), "<f4"), (3, 0)))
write("npy", "bad_big_endian.npy", npy_bytes(count((2, 3), ">f4")))
write("npy", "bad_complex.npy", npy_bytes(count((2, 3), "<c8")))
write("npy", "bad_structured.npy", npy_bytes(np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")])))
write("npy", "bad_text.npy", npy_bytes(np.array(["a", "b"])))
write("npy", "bad_truncated.npy", npy_bytes(count((2, 3), "<f4"))[:-1])
header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }\n"
write("npy", "bad_huge.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
write("npy", "bad_header_length.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{")

tensors = {dtype: count((2, 3), dtype) for dtype in ["float32", "float16", "int8", "uint8", "int32", "int64"]}
tensors["bfloat16"] = count((2, 3), ml_dtypes.bfloat16)
tensors["none"] = count((0, 3), "float32")
write("safetensors", "good_types.safetensors", save(tensors, {"key": "value"}))
write("safetensors", "good_nothing.safetensors", save({}))


def raw(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(first, last, dtype="U8", shape=None):
    return {"dtype": dtype, "shape": [last - first] if shape is None else shape, "data_offsets": [first, last]}


whole = save(tensors)
write("safetensors", "bad_truncated.safetensors", whole[:-1])
write("safetensors", "bad_longer.safetensors", whole + b"\0")
write("safetensors", "bad_overlap.safetensors", raw({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)))
write("safetensors", "bad_gap.safetensors", raw({"a": entry(0, 2), "b": entry(4, 6)}, bytes(6)))
write("safetensors", "bad_end.safetensors", raw({"a": entry(0, 2**64 - 1)}, bytes(4)))
write("safetensors", "bad_huge.safetensors", raw({"a": entry(0, 4, "F32", [2**60])}, bytes(4)))
write("safetensors", "bad_product.safetensors", raw({"a": entry(0, 4, "F32", [2**32, 2**32])}, bytes(4)))
write("safetensors", "bad_header_length.safetensors", struct.pack("<Q", 2**64 - 1))
write("safetensors", "bad_json.safetensors", struct.pack("<Q", 300) + b"[" * 300)
