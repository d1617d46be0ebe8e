"""Our PLAID index beside fast-plaid's, in one run over the same vectors: recall, search, build, bytes.

    cargo build --release -p maxsim-cli
    python3 -m pip install numpy fast-plaid==1.7.0.2110      # optional, brings torch along: without it only ours is measured
    python3 benches/peers/plaid_peer.py [--docs 30000] [--backend cpu|wgpu|cuda] [--maxsim target/release/maxsim] [--out FILE.json]

Documents have 60 to 180 tokens around 4,000 shared topics, queries 32 noisy tokens of a document; both programs run at their
defaults (probe 8, n_full_scores 4096, top 10; ours searches again where that does not settle a query), and ours with n_full_scores
4096 given as well. Search times are medians of searching alone: the index is loaded (on a GPU:
uploaded), queries lie in host memory and results come back there, one call before them does not count. Build times are from
vectors (ours: in a file, theirs: in memory) to an index on disk. Recall is the share of the ten best by float32 scores of the
vectors themselves, computed by numpy (or torch on a GPU); next to it that of the same index scored whole, which is what its bits per dimension allow.
fast-plaid runs on `cuda` with `--backend cuda` and on `cpu` otherwise.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

DIM, TOPICS, LQ, TOP_K = 128, 4000, 32, 10

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--docs", type=int, default=30_000)
parser.add_argument("--backend", choices=["cpu", "wgpu", "cuda"], default="cpu")
parser.add_argument("--nbits", type=int, default=4)
parser.add_argument("--maxsim", default="target/release/maxsim", help="the command")
parser.add_argument("--queries", type=int, nargs="+", default=[1, 64, 512], help="numbers of queries in one call")
parser.add_argument("--exact-queries", type=int, default=256, help="queries that recall is measured on")
parser.add_argument("--repeat", type=int, default=12, help="searches that are timed; a third of it from 512 queries up")
parser.add_argument("--without-peer", action="store_true", help="only ours")
parser.add_argument("--work", help="where vectors and indexes are put [default: a temporary directory]")
parser.add_argument("--out", help="also write the JSON object here")
args = parser.parse_args()


def log(*words):
    print(*words, file=sys.stderr, flush=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def noisy(x, noise, rng):
    return unit(x + np.float32(noise * 4 / DIM**0.5) * rng.standard_normal(x.shape, dtype=np.float32))


def corpus(count):
    """Unit vectors f16 [T, d], offsets [count + 1], queries f16 [n, 32, d]: what both programs get."""
    rng = np.random.default_rng(5)
    topics = unit(rng.standard_normal((TOPICS, DIM), dtype=np.float32))
    offsets = np.concatenate([[0], np.cumsum(rng.integers(60, 181, count))]).astype(np.uint32)
    vectors = np.empty((offsets[-1], DIM), np.float16)
    for start in range(0, len(vectors), 1 << 18):
        part = vectors[start : start + (1 << 18)]
        part[:] = noisy(topics[rng.integers(0, TOPICS, len(part))], 0.35, rng)
    rng = np.random.default_rng(6)
    source = rng.integers(0, count, max(args.queries + [args.exact_queries]))
    tokens = rng.integers(offsets[source], offsets[source + 1], (LQ, len(source))).T
    return vectors, offsets, noisy(vectors[tokens].astype(np.float32), 0.25, rng).astype(np.float16)


def exact(vectors, offsets, queries):
    """The ten best documents of every query, by float32 scores."""
    try:
        import torch
    except ImportError:
        torch = None
    if torch is not None and torch.cuda.is_available():
        return exact_on_gpu(torch, vectors, offsets, queries)
    q = queries.astype(np.float32).reshape(-1, DIM).T.copy()
    scores = np.empty((len(offsets) - 1, len(queries)), np.float32)
    for first in range(0, len(scores), 128):
        ends = offsets[first : first + 129].astype(np.int64)
        similarities = vectors[ends[0] : ends[-1]].astype(np.float32) @ q
        best = np.maximum.reduceat(similarities, ends[:-1] - ends[0], axis=0)
        scores[first : first + 128] = best.reshape(len(best), len(queries), LQ).sum(axis=2)
    return np.argsort(-scores.T, axis=1, kind="stable")[:, :TOP_K].tolist()


def exact_on_gpu(torch, vectors, offsets, queries):
    """The same on a GPU, in float32 throughout."""
    torch.backends.cuda.matmul.allow_tf32 = False
    q = torch.from_numpy(queries.reshape(-1, DIM)).cuda().float()
    scores = torch.empty(len(queries), len(offsets) - 1, device="cuda")
    for first in range(0, scores.shape[1], 1024):
        ends = torch.from_numpy(offsets[first : first + 1025].astype(np.int64))
        similarities = torch.from_numpy(vectors[ends[0] : ends[-1]]).cuda().float() @ q.T
        best = torch.segment_reduce(similarities, "max", lengths=ends.diff().cuda(), axis=0)
        scores[:, first : first + 1024] = best.reshape(len(best), len(queries), LQ).sum(dim=2).T
    return torch.argsort(scores, dim=1, descending=True, stable=True)[:, :TOP_K].tolist()


def recall(found, expected):
    pairs = list(zip(found, expected))
    return sum(len(set(f) & set(e)) for f, e in pairs) / sum(len(e) for _, e in pairs)


def repeats(queries):
    return args.repeat if queries < 512 else max(args.repeat // 3, 1)


def maxsim(*words):
    command = [args.maxsim, "index", *map(str, words), "--backend", args.backend, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}")
    return json.loads(done.stdout)


def size(path):
    return sum(file.stat().st_size for file in pathlib.Path(path).rglob("*") if file.is_file())


def our_search(index, name, *options):
    found = maxsim("search", index, "--queries", work / f"{name}.npy", "--top-k", TOP_K, *options)
    hits = found["results"] if isinstance(found, dict) else found
    return found, [[hit["id"] for hit in hits] for hits in hits]


def ours(expected):
    index = work / "ours"
    build = maxsim("build", index, "--documents", work / "documents.npy", "--offsets", work / "offsets.npy",
                   "--nbits", args.nbits, "--replace")  # fmt: skip
    log("maxsim build", build)
    report = {
        "build_s": build["seconds"],
        "build_peak_bytes": build["peak_bytes"],
        "centroids": build["centroids"],
        "index_bytes": build["bytes"],
        "bytes_per_token": build["bytes_per_token"],
        "build_phases_s": build["phases"],
    }
    whole = our_search(index, "exact", "--exact")[1]
    report["recall_scored_whole"] = recall(whole, expected)
    for suffix, options in (("", []), ("_n_full_scores_4096", ["--n-full-scores", 4096])):
        found = our_search(index, "exact", *options)[1]
        report["recall" + suffix] = recall(found, expected)
        report["recall_of_whole_index" + suffix] = recall(found, whole)
        times = report["search" + suffix] = {}
        for count in args.queries:
            found, _ = our_search(index, f"q{count}", *options, "--repeat", repeats(count))
            times[count] = timing(count, found["seconds"])
            report["device"] = found["device"]
            log("maxsim", suffix, count, times[count])
    return report


def timing(count, seconds):
    median = statistics.median(seconds)
    return {"ms": median * 1e3, "least_ms": min(seconds) * 1e3, "qps": count / median}


def theirs(FastPlaid, torch, vectors, offsets, queries, expected):
    device = "cuda" if args.backend == "cuda" else "cpu"
    documents = [torch.from_numpy(vectors[a:b]) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist())]
    index = work / "theirs"
    peer = FastPlaid(str(index), device=device)
    start = time.perf_counter()
    peer.create(documents, nbits=args.nbits, seed=42)
    report = {"build_s": time.perf_counter() - start, "index_bytes": size(index), "device": device, "search": {}}
    report["bytes_per_token"] = report["index_bytes"] / len(vectors)
    log("fast-plaid build", report)
    q = torch.from_numpy(queries)

    def search(count):
        found = peer.search(q[:count], top_k=TOP_K, n_full_scores=4096, n_ivf_probe=8, show_progress=False)
        return [[document for document, _ in hits] for hits in found]

    report["recall"] = recall(search(args.exact_queries), expected)
    for count in args.queries:
        search(count)
        seconds = []
        for _ in range(repeats(count)):
            start = time.perf_counter()
            search(count)
            seconds.append(time.perf_counter() - start)
        report["search"][count] = timing(count, seconds)
        log("fast-plaid", count, report["search"][count])
    # The same index, searched by us.
    report["recall_searched_by_maxsim"] = recall(our_search(index, "exact")[1], expected)
    return report


def print_table(report):
    names = [name for name in ("maxsim", "fast_plaid") if name in report]
    rows = [("", *names)]

    def row(title, value, form):
        cells = [value(report[name]) for name in names]
        rows.append((title, *("–" if cell is None else form.format(cell) for cell in cells)))

    row("recall@10 of exact scores", lambda r: r["recall"], "{:.4f}")
    row("recall@10 of the index scored whole", lambda r: r.get("recall_of_whole_index"), "{:.4f}")
    row("exact ten best by the whole index", lambda r: r.get("recall_scored_whole"), "{:.4f}")
    row("the same index searched by maxsim", lambda r: r.get("recall_searched_by_maxsim"), "{:.4f}")
    for count in args.queries:
        row(f"ms for {count}", lambda r: r["search"][count]["ms"], "{:.2f}")
        row(f"queries/s at {count}", lambda r: r["search"][count]["qps"], "{:.0f}")
    row("build s", lambda r: r["build_s"], "{:.1f}")
    row("index MB", lambda r: r["index_bytes"] / 1e6, "{:.1f}")
    row("bytes a token", lambda r: r["bytes_per_token"], "{:.2f}")
    for title, *cells in rows:
        log(f"{title:36}", *(f"{cell:>14}" for cell in cells))


with tempfile.TemporaryDirectory(dir=args.work) as directory:
    work = pathlib.Path(directory)
    start = time.perf_counter()
    vectors, offsets, queries = corpus(args.docs)
    np.save(work / "documents.npy", vectors)
    np.save(work / "offsets.npy", offsets)
    for name, count in [("exact", args.exact_queries)] + [(f"q{count}", count) for count in args.queries]:
        np.save(work / f"{name}.npy", queries[:count])
    log(f"{args.docs} documents, {len(vectors)} tokens in {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    expected = exact(vectors, offsets, queries[: args.exact_queries])
    log(f"exact scores in {time.perf_counter() - start:.1f} s")
    report = {
        "command": " ".join(["python3", *sys.argv]),
        "documents": args.docs,
        "tokens": len(vectors),
        "dim": DIM,
        "nbits": args.nbits,
        "exact_queries": args.exact_queries,
        "processors": len(os.sched_getaffinity(0)),
        "maxsim": ours(expected),
    }
    if not args.without_peer:
        try:
            import torch
            from fast_plaid.search import FastPlaid
        except ImportError as error:
            log(f"without fast-plaid: {error}")
        else:
            report["fast_plaid"] = theirs(FastPlaid, torch, vectors, offsets, queries, expected)
    print_table(report)
    text = json.dumps(report, indent=2)
    print(text)
    if args.out:
        pathlib.Path(args.out).write_text(text + "\n")
