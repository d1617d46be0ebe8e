"""Quality of an encoder on the Cranfield 1400 collection: nDCG@10 of what `maxsim search` finds.

    python cranfield.py MAXSIM FOLDER_WITH_CRANFIELD [MODEL …] > ../../benches/record/cpu-spr/cranfield.json

MAXSIM is the command (built with the feature `colbert`), a MODEL what its `--model` takes; the built-in encoder is always
measured. Every document is scored. Judgements 1 to 4 are relevant (binary gain).
"""

import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def texts(path: Path) -> list[str]:
    """The body of each record, in order."""
    return [r.split(".W\n", 1)[1] for r in re.split(r"^\.I \d+\n", path.read_text(), flags=re.M)[1:]]


def relevant(path: Path) -> dict[int, set[int]]:
    """Relevant documents by query, both counted from 0."""
    out: dict[int, set[int]] = {}
    for line in path.read_text().splitlines():
        query, document, grade = map(int, line.split()[:3])
        if 1 <= grade <= 4:
            out.setdefault(query - 1, set()).add(document - 1)
    return out


def ndcg(ranking: list[int], judged: set[int]) -> float:
    """Of the first ten."""
    gain = sum(1 / math.log2(rank + 2) for rank, d in enumerate(ranking[:10]) if d in judged)
    return gain / sum(1 / math.log2(rank + 2) for rank in range(min(10, len(judged))))


def measure(maxsim: str, folder: Path, options: list[str]) -> dict:
    """Figures of one encoder."""
    flat = [" ".join(text.split()) for text in texts(folder / "cran.all.1400")]
    queries = [" ".join(text.split()) for text in texts(folder / "cran.qry")]
    judged = relevant(folder / "cranqrel")
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "cranfield.txt"
        file.write_text("\n".join(flat) + "\n")
        asked = [argument for query in queries for argument in ("--query", query)]
        start = time.perf_counter()
        found = subprocess.run(
            [maxsim, "search", "--text", file, "--top-k", "10", "--json", *options, *asked],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    report = json.loads(found.stdout)
    # Empty documents (there are two) are left out by the command; the line tells which document a hit is.
    rankings = [[int(hit["source"].rsplit(":", 1)[1]) - 1 for hit in query["hits"]] for query in report["queries"]]
    gains = [ndcg(ranking, judged[query]) for query, ranking in enumerate(rankings)]
    return {
        "ndcg_at_10": round(sum(gains) / len(gains), 4),
        "queries": len(gains),
        "documents": report["documents"],
        "seconds_in_all": round(seconds, 1),
    }


def main(maxsim: str, folder: Path, models: list[str]) -> None:
    """Prints the record."""
    version = subprocess.run([maxsim, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    rows = [{"encoder": "built in", **measure(maxsim, folder, [])}]
    rows += [{"encoder": Path(model).name, **measure(maxsim, folder, ["--model", model])} for model in models]
    print(json.dumps({"collection": "Cranfield 1400", "version": version, "rows": rows}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
