"""Prints what the original tokenizer makes of a few awkward texts: data of the tests in `crates/encode/src/wordpiece.rs`.

    python goldens.py > ../../crates/encode/tests/goldens.json
"""

import json

import teacher

TEXTS = [
    "",
    "   \t\n",
    "Ships that sail under water.",
    "The quick-brown fox can't jump; it's 3.14 metres (approx.)!",
    "Crème brûlée à la façon d'Été, Ångström",
    "cafe\u0301 nai\u0308ve",
    "Straße ΑΘΗΝΑ Москва",
    "東京タワー and 北京",
    "서울 한국어",
    "hello 👋🏽 world 🚢",
    "zero\u200bwidth soft\u00adhyphen no\u00a0break",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 100 + " " + "x" * 101,
    "submersible U-boats #hashtag @user a@b.co $9.99 50% ##ing",
    "İstanbul ǅungla ﬁnance",
    "“quoted” … — dash · ;",
]


def main() -> None:
    """A JSON array of `[text, tokens]`; words that cannot be spelt are `[UNK]`."""
    tok = teacher.tokenizer()
    goldens = [[text, tok.encode(text, add_special_tokens=False).tokens] for text in TEXTS]
    print("[\n" + ",\n".join(json.dumps(g) for g in goldens) + "\n]")


if __name__ == "__main__":
    main()
