#!/usr/bin/env python3
"""Times every tier of a GPU on the shapes peers are measured on, and writes one JSON file.

    cargo build --release -p maxsim-cli
    benches/gpu/tiers.py --out benches/record/<device>/wgpu.json [--tiers portable,coop] [--shapes 1x10000] [--reps 30]

Documents lie on the device before anything is timed, and every call reads its scores back. `gpu_us` is the device's own time
of the compute passes, `wall_us` the call's. A shape that fails is kept with its error.
"""

import argparse
import json
import pathlib
import subprocess
import sys

# name, operator, options of `maxsim bench`.
SHAPES = [
    ("1x1000 32x300", "forward", "--nq 1 --nd 1000 --lq 32 --ld 300"),
    ("1x1000 32x1024", "forward", "--nq 1 --nd 1000 --lq 32 --ld 1024"),
    ("1x1000 128x1024", "forward", "--nq 1 --nd 1000 --lq 128 --ld 1024"),
    ("1x10000 32x300", "forward", "--nq 1 --nd 10000 --lq 32 --ld 300"),
    ("1x50000 32x300", "forward", "--nq 1 --nd 50000 --lq 32 --ld 300"),
    ("32x32 32x300", "forward", "--nq 32 --nd 32 --lq 32 --ld 300"),
    ("128x128 32x300", "forward", "--nq 128 --nd 128 --lq 32 --ld 300"),
    ("32x10000 32x300", "forward", "--nq 32 --nd 10000 --lq 32 --ld 300"),
    ("1x500 1024x1024", "forward", "--nq 1 --nd 500 --lq 1024 --ld 1024"),
    ("32x32 1024x1024", "forward", "--nq 32 --nd 32 --lq 1024 --ld 1024"),
    ("1x1000 32x300 d=512", "forward", "--nq 1 --nd 1000 --lq 32 --ld 300 --dim 512"),
    ("1x500 32x300 d=1024", "forward", "--nq 1 --nd 500 --lq 32 --ld 300 --dim 1024"),
    ("1x4000 32x2048 d=48", "forward", "--nq 1 --nd 4000 --lq 32 --ld 2048 --dim 48"),
    ("1x10000 32x300 normalize", "forward", "--nq 1 --nd 10000 --lq 32 --ld 300 --normalize"),
    ("1x10000 32x30..300", "varlen", "--nq 1 --nd 10000 --lq 32 --ld 300 --ragged 30"),
    ("64k pairs of 64 x 10000", "score_pairs", "--nq 64 --nd 10000 --lq 32 --ld 300 --pairs 65536"),
    ("1x32 32x16384", "forward", "--nq 1 --nd 32 --lq 32 --ld 16384"),
    ("1x16 32x64", "forward", "--nq 1 --nd 16 --lq 32 --ld 64"),
    ("top-100 32x10000 32x128", "retrieve", "--nq 32 --nd 10000 --lq 32 --ld 128 --top-k 100"),
    ("top-100 1x100000 32x128", "retrieve", "--nq 1 --nd 100000 --lq 32 --ld 128 --top-k 100"),
]
DTYPES = ["f16", "f32"]
# Quantised documents have operators of their own.
QUANTISED = [
    ("1x8000 32x256", "int8", "--nq 1 --nd 8000 --lq 32 --ld 256"),
    ("128x128 32x300", "int8", "--nq 128 --nd 128 --lq 32 --ld 300"),
    ("1x8000 32x256", "fp8", "--nq 1 --nd 8000 --lq 32 --ld 256"),
    ("1x10000 32x300 2 bit", "residual", "--nq 1 --nd 10000 --lq 32 --ld 300 --nbits 2 --centroids 65536"),
    ("1x10000 32x300 4 bit", "residual", "--nq 1 --nd 10000 --lq 32 --ld 300 --nbits 4 --centroids 65536"),
]


def run(maxsim, tier, op, options, dtype, reps):
    command = [maxsim, "bench", "--json", "--backend", "wgpu", "--tier", tier, "--op", op, "--reps", str(reps)]
    command += ["--resident", *options.split()]
    if dtype:
        command += ["--dtype", dtype]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--maxsim", default="target/release/maxsim")
    parser.add_argument("--tiers", help="default: all the adapter runs")
    parser.add_argument("--shapes", default="", help="only shapes whose name contains this")
    parser.add_argument("--reps", type=int, default=30)
    args = parser.parse_args()

    info = json.loads(subprocess.run([args.maxsim, "info", "--json"], capture_output=True, text=True).stdout)
    if not info["adapters"]:
        sys.exit("no adapter")
    adapter = info["adapters"][0]
    tiers = args.tiers.split(",") if args.tiers else adapter["tiers"]
    work = [(name, op, options, dtype) for name, op, options in SHAPES for dtype in DTYPES]
    work += [(name, op, options, None) for name, op, options in QUANTISED]
    rows = []
    for name, op, options, dtype in work:
        if args.shapes not in name:
            continue
        for tier in tiers:
            row = run(args.maxsim, tier, op, options, dtype, args.reps)
            row = {"name": name, "tier": tier, **row}
            rows.append(row)
            label = f"{name:28} {op:12} {dtype or op:5} {tier:9}"
            if "error" in row:
                print(label, row["error"])
                continue
            gpu = row["gpu_us"] or row["wall_us"]
            tflops = row["gflops"] * row["wall_us"] / gpu / 1e3
            print(f"{label} gpu {gpu:10.1f} µs, wall {row['wall_us']:10.1f} µs, {tflops:7.2f} TFLOP/s", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"adapter": adapter, "version": info["version"], "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
