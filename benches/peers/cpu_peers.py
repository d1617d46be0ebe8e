"""Our CPU kernels beside their peers, in one run on one machine.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r benches/peers/requirements.txt
    cargo build --release -p maxsim-cli
    /tmp/peers/bin/python benches/peers/cpu_peers.py [--threads 1,2] [--levels avx512,avx2] [--out FILE.json]

Every figure is GFLOP/s (2·Nq·Nd·Lq·Ld·d operations over the best of many calls) and, behind the comma, its ratio to
OpenBLAS sgemm 2048³ measured between the other measurements of the same run. `numpy` is one sgemm over all tokens and a
maximum. A peer whose scores differ from numpy's by more than 1e-3 is shown as wrong, whatever its speed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time

SHAPES = [  # name, Nq, Nd, Lq, Ld, d
    ("1x1000 32x300", 1, 1000, 32, 300, 128),
    ("1x1000 32x1024", 1, 1000, 32, 1024, 128),
    ("1x100 32x180 d96", 1, 100, 32, 180, 96),
    ("1x50 1030x1030", 1, 50, 1030, 1030, 128),
    ("32x32 32x300", 32, 32, 32, 300, 128),
]
BINARY = os.path.join(os.path.dirname(__file__), "..", "..", "target", "release", "maxsim")


def best(call, seconds=1.0, most=200):
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < most):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def ours(shape, threads, level, dtype, op="forward"):
    name, nq, nd, lq, ld, d = shape
    command = [BINARY, "bench", "--backend", "cpu", "--op", op, "--dtype", dtype, "--threads", str(threads)]
    command += ["--level", level, "--nq", nq, "--nd", nd, "--lq", lq, "--ld", ld, "--dim", d, "--reps", 15, "--json"]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if run.returncode:
        return {"error": run.stderr.strip()}
    return json.loads(run.stdout)


def worker(threads, core):
    """Runs in a process of its own, whose environment fixes threads and OpenBLAS kernels."""
    import numpy as np
    import fast_maxsim
    import maxsim_cpu

    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, 2048, 2048), dtype=np.float32)

    def sgemm():
        return 2 * 2048**3 / best(lambda: a @ b, 0.8) / 1e9

    rows = []
    for shape in SHAPES:
        name, nq, nd, lq, ld, d = shape
        q = rng.standard_normal((nq, lq, d), dtype=np.float32)
        docs = rng.standard_normal((nd, ld, d), dtype=np.float32)
        q /= np.linalg.norm(q, axis=-1, keepdims=True)
        docs /= np.linalg.norm(docs, axis=-1, keepdims=True)
        flops = 2.0 * nq * nd * lq * ld * d

        def numpy_scores():
            out = np.empty((nq, nd), np.float32)
            for i in range(nq):
                similarity = docs.reshape(-1, d) @ q[i].T
                out[i] = similarity.reshape(nd, ld, lq).max(1).sum(1)
            return out

        reference = numpy_scores()
        row = {"shape": name, "threads": threads, "openblas": core, "sgemm_gflops": sgemm(), "gflops": {}}
        row["gflops"]["numpy"] = flops / best(numpy_scores) / 1e9
        for peer, module in (("fast-maxsim", fast_maxsim), ("maxsim-cpu", maxsim_cpu)):
            call = lambda: np.stack([np.asarray(module.maxsim_scores(query, docs)) for query in q])
            try:
                wrong = np.abs(call().reshape(nq, nd) - reference).max() > 1e-3 * max(1, np.abs(reference).max())
                row["gflops"][peer] = "wrong" if wrong else flops / best(call) / 1e9
            except Exception as error:  # a peer that cannot is a result
                row["gflops"][peer] = f"{type(error).__name__}"
        del docs
        for level in os.environ["LEVELS"].split(","):
            for dtype in ("f32", "f16", "bf16", "int8"):
                result = ours(shape, threads, level, dtype, "int8" if dtype == "int8" else "forward")
                value = result["error"] if "error" in result else flops / result["min_us"] / 1e3
                row["gflops"][f"maxsim {level} {dtype}"] = value
                row.setdefault("records", []).append(result)
        # sgemm again, so that a machine that changed pace meanwhile does not flatter anyone.
        row["sgemm_gflops"] = max(row["sgemm_gflops"], sgemm())
        rows.append(row)
    print(json.dumps(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--levels", default="avx2")
    parser.add_argument("--openblas", default="", help="OPENBLAS_CORETYPE, e.g. Haswell for AVX2")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    rows = []
    for threads in arguments.threads.split(","):
        environment = dict(os.environ, LEVELS=arguments.levels, OPENBLAS_NUM_THREADS=threads, RAYON_NUM_THREADS=threads,
                           OMP_NUM_THREADS=threads)
        if arguments.openblas:
            environment["OPENBLAS_CORETYPE"] = arguments.openblas
        run = subprocess.run([sys.executable, __file__, "worker", threads, arguments.openblas or "default"],
                             env=environment, capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        rows += json.loads(run.stdout)
    for row in rows:
        print(f"\n{row['shape']}, {row['threads']} thread(s), sgemm {row['sgemm_gflops']:.1f} GF/s ({row['openblas']})")
        for name, value in row["gflops"].items():
            text = value if isinstance(value, str) else f"{value:7.1f} GF/s, {value / row['sgemm_gflops']:.2f}"
            print(f"    {name:24} {text}")
    if arguments.out:
        machine = {"machine": platform.machine(), "cpus": os.cpu_count()}
        with open("/proc/cpuinfo") as info:
            machine["model"] = next((l.split(": ")[1].strip() for l in info if l.startswith("model name")), "unknown")
        with open(arguments.out, "w") as out:
            json.dump({"machine": machine, "rows": rows}, out, indent=1)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "worker":
        worker(int(sys.argv[2]), sys.argv[3])
    else:
        main()
