"""Tiny ColBERT models with random weights, and what PyLate makes of texts with them: what Rust's encoder is held to.

    pip install -r tiny_models.txt
    python tiny_models.py ../../crates/encode/tests/models FOLDER_OF_MINILM

Writes folders as PyLate, stanford ColBERT and sentence-transformers save them, `cases.json` (texts, and how a case changes
the configuration files of its folder) and `goldens.safetensors` (token vectors per case and text; of all-MiniLM-L6-v2, which is
not stored here, the first dimensions). Weights are drawn wide,
so that masks, positions and windows show in the outputs; models as they are initialised for training hide such mistakes.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pylate
import sentence_transformers
import tokenizers
import torch
import transformers
from pylate.models import ColBERT
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "What sails under water?",
    "A submersible warship, usually armed with torpedoes; it sails -- slowly -- below the surface.",
    "  leading and trailing space \n",
    "",
    "!?",
    "Café ÅNGSTRÖM naïve – 深海 \U0001f6a2 e\u0301t\u00e9",
    "mask [MASK] within, [q] and [Q] text. unusedword zzzzqqqq",
    "the the the the the the the the the the the the the the the the the the the the the the the the the the the",
]
WORDS = """the a of in that what sails under water below surface ship ships submersible warship usually armed with torpedo
torpedoes sub mers ible lead ing trail space and mask within text word it slow ly""".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
NAMES = dict(unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
HIDDEN, HEADS, DIM = 16, 2, 12


def template() -> processors.TemplateProcessing:
    """[CLS] text [SEP]."""
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]"))]
    )


def word_piece() -> transformers.PreTrainedTokenizerFast:
    """An uncased tokenizer that spells ASCII, a few words, and knows no other script."""
    chars = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = SPECIAL + chars + ["##" + c for c in chars if c.isalnum()] + [w for w in WORDS if len(w) > 1]
    pieces += ["##" + w for w in ["ing", "ible", "mers", "s", "ly"] if "##" + w not in pieces]
    made = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor, made.decoder = template(), decoders.WordPiece()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **NAMES)


def byte_pairs() -> transformers.PreTrainedTokenizerFast:
    """A cased byte-level tokenizer, as ModernBERT's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(TEXTS + [" ".join(WORDS)] * 3, trainer)
    made.post_processor, made.decoder = template(), decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **NAMES)


def randomise(module: torch.nn.Module) -> None:
    """Weights that give every part of a model a say."""
    for name, parameter in module.named_parameters():
        with torch.no_grad():
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            elif parameter.dim() == 1:
                parameter.normal_(0, 0.2)
            else:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5 if "embed" not in name else 0.7)


def bert(tokens: int) -> transformers.BertModel:
    """Two layers."""
    config = transformers.BertConfig(
        vocab_size=tokens, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=24,
        max_position_embeddings=40, pad_token_id=0,
    )  # fmt: skip
    return transformers.BertModel(config, add_pooling_layer=False)


def modern_bert(tokens: int) -> transformers.ModernBertModel:
    """Four layers: whole, window, window, whole."""
    config = transformers.ModernBertConfig(
        vocab_size=tokens, hidden_size=HIDDEN, num_hidden_layers=4, num_attention_heads=HEADS, intermediate_size=24,
        max_position_embeddings=64, local_attention=8, global_attn_every_n_layers=3, pad_token_id=0, cls_token_id=2,
        sep_token_id=3, bos_token_id=2, eos_token_id=3, attn_implementation="eager",
    )  # fmt: skip
    return transformers.ModernBertModel(config)


def save_colbert(folder: Path, tokenizer, backbone, **settings) -> None:
    """A PyLate folder."""
    with tempfile.TemporaryDirectory() as plain:
        randomise(backbone)
        backbone.save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        model = ColBERT(plain, embedding_size=DIM, device="cpu", **settings)
    randomise(model[0].auto_model)
    randomise(model[1])
    model.save_pretrained(str(folder), create_model_card=False)


def second_dense(folder: Path) -> None:
    """A projection with everything one can have: bias, activation, residual of another size. Used by a case only."""
    dense = pylate.models.Dense(DIM, 8, bias=True, activation_function=torch.nn.Tanh(), use_residual=True)
    randomise(dense)
    folder.mkdir()
    dense.save(str(folder))


def save_stanford(folder: Path, source: Path) -> None:
    """The folder of the original ColBERT: the projection among the backbone's tensors, settings in artifact.metadata."""
    folder.mkdir()
    tensors = {"bert." + name: tensor for name, tensor in load_file(source / "model.safetensors").items()}
    tensors["linear.weight"] = torch.randn(DIM, HIDDEN)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(source / name, folder / name)
    config = json.loads((source / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]}
    write(folder / "config.json", config)
    metadata = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 14, "doc_maxlen": 20}
    write(folder / "artifact.metadata", metadata | {"attend_to_mask_tokens": False, "mask_punctuation": True})


def write(path: Path, value: object) -> None:
    """JSON as people read it."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


MODULE = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
DENSE = {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"}
SETTINGS = "config_sentence_transformers.json"
CASES = {
    "bert": ("bert", {}),
    "bert attends": ("bert", {SETTINGS: {"attend_to_expansion_tokens": True}}),
    "bert without expansion": (
        "bert",
        {SETTINGS: {"do_query_expansion": False, "skiplist_words": ["the", "water", "notaword"]}},
    ),
    "bert other prefixes": (
        "bert",
        {SETTINGS: {"query_prefix": "[unused0]", "document_prefix": "", "skiplist_words": []}},
    ),
    "bert prompted": (
        "bert",
        {SETTINGS: {"prompts": {"ask": "what sails: "}, "default_prompt_name": "ask", "document_length": 30}},
    ),
    "bert two projections": (
        "bert",
        {"modules.json": [MODULE, DENSE, DENSE | {"idx": 2, "name": "2", "path": "2_Dense"}]},
    ),
    "modernbert": ("modernbert", {}),
    "modernbert attends": ("modernbert", {SETTINGS: {"attend_to_expansion_tokens": True, "query_length": 40}}),
    "modernbert lower case": ("modernbert", {"sentence_bert_config.json": {"do_lower_case": True}}),
    "stanford": ("stanford", {}),
    "plain": (
        "bert",
        {
            "modules.json": [MODULE, {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}],
            SETTINGS: None,
            "sentence_bert_config.json": {"max_seq_length": 26},
        },
    ),
}  # fmt: skip


def case_folder(source: Path, changes: dict, to: Path) -> Path:
    """A copy of a model with changed configuration: objects are merged, anything else replaces the file, null removes it."""
    shutil.copytree(source, to)
    for name, change in changes.items():
        path = to / name
        if change is None:
            path.unlink()
        elif isinstance(change, dict):
            write(path, (json.loads(path.read_text()) if path.exists() else {}) | change)
        else:
            write(path, change)
    return to


def plain_outputs(folder: Path) -> list[torch.Tensor]:
    """Token outputs of a sentence-transformers folder at unit length."""
    model = SentenceTransformer(str(folder), device="cpu")
    outputs = model.encode(TEXTS, output_value="token_embeddings", convert_to_tensor=False)
    return [torch.nn.functional.normalize(torch.as_tensor(o), dim=-1) for o in outputs]


def main(out: Path, minilm: Path) -> None:
    """Writes everything anew."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.manual_seed(20)
    torch.use_deterministic_algorithms(True)
    tokenizer = word_piece()
    save_colbert(out / "bert", tokenizer, bert(len(tokenizer)), query_length=12, document_length=24)
    second_dense(out / "bert" / "2_Dense")
    save_stanford(out / "stanford", out / "bert")
    tokenizer = byte_pairs()
    save_colbert(out / "modernbert", tokenizer, modern_bert(len(tokenizer)), query_length=16, document_length=48)
    # What only these versions of these libraries look at.
    for path in out.rglob("*"):
        if path.name in {"README.md", "model_card.json"}:
            path.unlink()

    goldens = {}
    for case, (model, changes) in CASES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = case_folder(out / model, changes, Path(temporary) / "model")
            if case == "plain":
                # Not read by Rust.
                (folder / "1_Pooling").mkdir()
                pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
                write(folder / "1_Pooling" / "config.json", pooling)
                queries, documents = plain_outputs(folder), plain_outputs(folder)
            else:
                loaded = ColBERT(str(folder), device="cpu")
                queries, documents = (
                    loaded.encode(TEXTS, is_query=q, convert_to_tensor=True, show_progress_bar=False) for q in (True, False)
                )
            for kind, vectors in (("query", queries), ("document", documents)):
                for i, tensor in enumerate(vectors):
                    goldens[f"{case}/{kind}/{i}"] = tensor.reshape(-1, tensor.shape[-1]).contiguous()
    for i, vectors in enumerate(plain_outputs(minilm)):
        goldens[f"minilm/document/{i}"] = vectors[:, :DIM].contiguous()
    save_file(goldens, out / "goldens.safetensors")
    versions = {m.__name__: m.__version__ for m in (sentence_transformers, tokenizers, torch, transformers)}
    versions["pylate"] = __import__("importlib.metadata").metadata.version("pylate")
    cases = {name: {"model": model, "changes": changes} for name, (model, changes) in CASES.items()}
    (out / "goldens.safetensors").chmod(0o644)
    write(out / "cases.json", {"versions": versions, "texts": TEXTS, "cases": cases})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
