"""An exported directory in the real fast-plaid: does it load, and does it find what we find?

    pip install numpy fast-plaid            # brings torch along
    maxsim index export INDEX DIR
    maxsim index search DIR --queries Q.npy --top-k 10 --n-full-scores 65536 --json > ours.json
    python fast_plaid_reads.py DIR Q.npy ours.json

Exits 1 unless, per query, the best document is the same, and overall at least 98 % of the ten best are common and common
scores differ by at most 0.02. So many full scores leave the choice to them; approximate scores of fast-plaid are sums of half
precision, which order documents that are nearly equal in their own way. For next-plaid, `benches/peers/next-plaid` does the same in both directions.
"""

import json
import sys

import numpy as np
import torch
from fast_plaid.search import FastPlaid

directory, queries, ours = sys.argv[1:4]
queries = torch.from_numpy(np.load(queries)).half()
ours = json.load(open(ours))
theirs = FastPlaid(directory, device="cpu").search(queries, top_k=10, n_full_scores=65536, show_progress=False)

first, common, total, worst = 0, 0, 0, 0.0
for mine, their in zip(ours, theirs, strict=True):
    their = {document: score for document, score in their}
    first += mine[0]["id"] == max(their, key=their.get)
    for hit in mine[:10]:
        total += 1
        if hit["id"] in their:
            common += 1
            worst = max(worst, abs(hit["score"] - their[hit["id"]]))
print(f"same best document: {first} of {len(ours)}; common: {common} of {total}; largest difference: {worst:.4f}")
sys.exit(not (first == len(ours) and common >= 0.98 * total and worst <= 0.02))
