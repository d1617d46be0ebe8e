#!/usr/bin/env python3
"""Reads an index by docs/index-format.md alone, and checks it against the vectors it was built from.

    python3 tests/interop/read_index.py [MAXSIM]

MAXSIM is the command to build with (target/release/maxsim by default). Needs NumPy.
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np

BLOCK = 1 << 16
TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


class Record:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, fmt):
        values = struct.unpack_from("<" + fmt, self.data, self.at)
        self.at += struct.calcsize("<" + fmt)
        return values[0] if len(values) == 1 else values

    def text(self):
        return self.take(f"{self.take('I')}s").decode()


def container(path, kind, fingerprint=None):
    data = path.read_bytes()
    assert data[:8] == b"\x89MXS\r\n\x1a\n"
    major, _minor, found, length, header_length, count, checksum = struct.unpack_from("<HH4sQIII", data, 8)
    assert (major, found, length) == (1, kind, len(data))
    header = data[:32] + bytes(4) + data[36:header_length]
    assert crc32c(header) == checksum and fingerprint in (None, (length, checksum))
    sections = {}
    for i in range(count):
        tag, first, offset, length = struct.unpack_from("<4sIQQ", data, 64 + 24 * i)
        section = data[offset : offset + length]
        for j, start in enumerate(range(0, length, BLOCK)):
            (stored,) = struct.unpack_from("<I", data, 64 + 24 * count + 4 * (first + j))
            assert crc32c(section[start : start + BLOCK]) == stored, (path.name, tag)
        sections[tag.decode()] = section
    return sections


def bits(words, count):
    return np.unpackbits(np.frombuffer(words, "u1"), bitorder="little")[:count].astype(bool)


def columns(record):
    return [(record.take("B"), record.text())[::-1] for _ in range(record.take("I"))]


def read(directory):
    """Live documents: id -> (vectors, metadata)."""
    manifest = container(directory / "manifest.mxi", b"MANI")
    head, segments = Record(manifest["HEAD"]), Record(manifest["SEGS"])
    _generation, _next_id, _next_file, kind, count = head.take("QQQII")
    number, length, checksum = head.take("QQI")
    codec = container(directory / f"codec-{number:08x}.mxi", b"CODC", (length, checksum))
    dim, nbits, dtype, _threshold, k = struct.unpack("<IIIfQ", codec["HEAD"])
    centroids = np.frombuffer(codec["CENT"], "<f2" if dtype else "<f4").reshape(k, dim).astype("f4")
    weights = np.frombuffer(codec["WGTS"], "<f4")
    documents, deleted_at = {}, 0
    for _ in range(count):
        number, length, checksum, n, tokens, has_deleted = segments.take("QQIQQI")
        file = container(directory / f"segment-{number:08x}.mxi", b"SEGM", (length, checksum))
        assert struct.unpack("<QQ", file["HEAD"]) == (n, tokens)
        deleted = np.zeros(n, bool)
        if has_deleted:
            size = (n + 31) // 32 * 4
            deleted = bits(manifest["DEAD"][deleted_at : deleted_at + size], n)
            deleted_at += size
        # Each bucket's bits least-significant first, in bytes that begin with their most significant bit.
        residuals = np.frombuffer(file["RESI"], "u1").reshape(tokens, -1)
        buckets = np.unpackbits(residuals, axis=1)[:, : dim * nbits].reshape(tokens, dim, nbits) @ (1 << np.arange(nbits))
        codes = np.frombuffer(file["CODE"], "<u4")
        vectors = (centroids[codes] + weights[buckets]) * np.frombuffer(file["NORM"], "<f2").astype("f4")[:, None]
        offsets = np.frombuffer(file["DOFF"], "<u4")
        # Inverted lists are a function of codes.
        starts = np.frombuffer(file["LOFF"], "<u4")
        owner = np.repeat(np.arange(n), np.diff(offsets))
        pairs = np.unique(np.stack([codes, owner]), axis=1)
        lists = [inverted(file["LIST"][starts[c] : starts[c + 1]]) for c in range(k)]
        assert [[c, d] for c, list in enumerate(lists) for d in list] == pairs.T.tolist()
        if kind == 0:
            ids = np.frombuffer(file["IDSN"], "<u8").tolist()
        else:
            at = np.frombuffer(file["IDSO"], "<u8")
            ids = [file["IDSB"][at[i] : at[i + 1]].decode() for i in range(n)]
        order = np.frombuffer(file["IDSX"], "<u4")
        assert [ids[i] for i in order] == sorted(ids, key=lambda id: id.encode() if kind else id)
        rows = [{} for _ in range(n)]
        for i, (name, type_) in enumerate(columns(Record(file["COLS"])) if "COLS" in file else []):
            present, values = bits(file[f"p{i:02x}."], n), file[f"v{i:02x}."]
            if type_ == 0:
                values = bits(values, n).tolist()
            elif type_ == 3:
                at = np.frombuffer(values, "<u8")
                values = [file[f"t{i:02x}."][at[j] : at[j + 1]].decode() for j in range(n)]
            else:
                values = np.frombuffer(values, "<i8" if type_ == 1 else "<f8").tolist()
            for j in np.flatnonzero(present):
                rows[j][name] = values[j]
        for j in np.flatnonzero(~deleted):
            documents[ids[j]] = (vectors[offsets[j] : offsets[j + 1]], rows[j])
    return documents


def inverted(data):
    """Documents of an inverted list: what is left out before each, in LEB128."""
    documents, next, gap, shift = [], 0, 0, 0
    for byte in data:
        gap |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            documents.append(next + gap)
            next, gap, shift = next + gap + 1, 0, 0
    return documents


def main():
    maxsim = sys.argv[1] if len(sys.argv) > 1 else "target/release/maxsim"
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for nbits, text in [(1, False), (2, True), (4, False), (8, True)]:
            lengths = random.integers(0, 12, 400)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("i8")
            x = random.standard_normal((offsets[-1], 32)).astype("f4")
            ids = [f"document {i} ä" if text else 7 * i for i in range(400)]
            rows = [{"n": i, "x": i / 4, "t": f"ö{i}", "b": i % 2 == 0} if i % 5 else {} for i in range(400)]
            np.save(work / "d.npy", x)
            np.save(work / "o.npy", offsets)
            (work / "ids").write_text("".join(f"{id}\n" for id in ids))
            (work / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
            index = work / f"{nbits}.index"
            run = lambda *args: subprocess.run([maxsim, "index", *map(str, args)], check=True, stdout=subprocess.DEVNULL)
            run("build", index, "--documents", work / "d.npy", "--offsets", work / "o.npy", "--ids", work / "ids",
                "--metadata", work / "rows", "--nbits", nbits, *(["--text-ids"] if text else []))
            run("delete", index, "--id", ids[3])
            documents = read(index)
            assert set(documents) == set(ids) - {ids[3]}
            worst, total = 1.0, 0.0
            for i, id in enumerate(ids):
                if i == 3:
                    continue
                vectors, row = documents[id]
                assert row == rows[i] and len(vectors) == lengths[i]
                expected = x[offsets[i] : offsets[i + 1]]
                cosines = (vectors * expected).sum(1) / np.linalg.norm(expected, axis=1)
                assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
                worst, total = min([worst, *cosines]), total + cosines.sum()
            mean = total / (offsets[-1] - lengths[3])
            print(f"{nbits} bit: mean cosine {mean:.4f}, worst {worst:.4f}")
            assert mean > {1: 0.85, 2: 0.94, 4: 0.99, 8: 0.995}[nbits]


main()
