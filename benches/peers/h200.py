"""Our CUDA kernels beside their peers, in one run on one GPU.

    cargo build --release -p maxsim-benches --features cuda --bin cuda
    python3 -m pip install late-interaction-kernels==0.4.5 flash-maxsim==0.3.0      # torch and triton come with the machine
    python3 benches/peers/h200.py [--binary target/release/cuda] [--only TEXT] [--out benches/record/h200/FILE.json]

Times are microseconds of GPU work: replays of a CUDA graph, the second-level cache flushed before each by writing 256 MB,
median of 30 (an empty kernel is timed as well). Ours come from the binary, which checks scores against float64 first; peers
run in this process on inputs of the same shapes. `floor` is the larger of bytes over 4.31 TB/s and operations over 775 TFLOP/s
(1,440 for fp8), the ceilings measured on an H200; `ratio` is the best peer over ours.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

import torch

BYTES_PER_US, FLOPS_PER_US, FP8_FLOPS_PER_US = 4.31e6, 775e6, 1440e6
DEVICE = "cuda"


def gpu_time(call, repeats=30):
    """Median microseconds of a replay; plain calls where the peer cannot be captured."""
    flush = torch.empty(256 << 20, dtype=torch.uint8, device=DEVICE)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    stream.synchronize()
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        replay, how = graph.replay, "graph"
    except Exception:
        torch.cuda.synchronize()
        replay, how = call, "eager"
    times = []
    for i in range(repeats):
        flush.fill_(i)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times), how


def unit(*shape, dtype=torch.bfloat16):
    x = torch.randn(*shape, device=DEVICE, dtype=torch.float32)
    return torch.nn.functional.normalize(x, dim=-1).to(dtype)


def lengths(count, longest):
    generator = torch.Generator().manual_seed(5)
    return torch.randint(longest // 10, longest + 1, (count,), generator=generator)


def numbers(text):
    """'32x300' → (32, 300)."""
    return tuple(int(part) for part in text.split("x"))


def parse(name):
    """Kind, Nq, Nd, Lq, Ld, d of a case's name."""
    words = name.split()
    d = next((int(word[1:]) for word in words if word[0] == "d" and word[1:].isdigit()), 128)
    words = [word for word in words if not (word[0] == "d" and word[1:].isdigit())]
    shapes = [numbers(word) for word in words if "x" in word and word.replace("x", "").isdigit()]
    kind = " ".join(word for word in words if not word.replace("x", "").isdigit())
    return kind, shapes, d


def peers(name):
    """Calls of the peers for a case: {peer: call}."""
    import late_interaction_kernels as lik

    kind, shapes, d = parse(name)
    calls = {}
    if kind in ("", "ragged", "normalize", "kd"):
        (nq, nd), (lq, ld) = shapes
        q = unit(nq, lq, d)
        docs = unit(nq, nd, ld, d) if kind == "kd" else unit(nd, ld, d)
        mask = None
        if kind == "ragged":
            mask = torch.arange(ld)[None, :] < lengths(nd, ld)[:, None]
            mask = mask.to(DEVICE)
        calls["lik"] = lambda: lik.maxsim(q, docs, d_mask=mask, normalize=kind == "normalize")
        if kind == "":
            import flash_maxsim

            if nq == 1:
                calls["flash"] = lambda: flash_maxsim.flash_maxsim(q[0], docs)
            else:
                calls["flash"] = lambda: flash_maxsim.flash_maxsim_batched(q, docs)
    elif kind.startswith("packed"):
        cu = torch.cat([torch.zeros(1, dtype=torch.long), lengths(10_000, 300).cumsum(0)]).to(torch.int32)
        docs, q = unit(int(cu[-1]), d), unit(32, d)
        cu, one = cu.to(DEVICE), torch.tensor([0, 32], dtype=torch.int32, device=DEVICE)
        calls["lik"] = lambda: lik.maxsim_varlen(q, docs, one, cu, 32, 300)
    elif kind.startswith("pairs"):
        q, docs = unit(5000, 32, d), unit(5000, 300, d)
        calls["lik"] = lambda: lik.maxsim_pairs(q, docs)
    elif kind.startswith("list"):
        from late_interaction_kernels.score_pairs import score_pairs_packed

        q, docs = unit(64 * 32, d), unit(10_000 * 300, d)
        step = lambda n, length: torch.arange(n + 1, dtype=torch.int32, device=DEVICE) * length
        cu_q, cu_d = step(64, 32), step(10_000, 300)
        qi = torch.randint(64, (65_536,), dtype=torch.int32, device=DEVICE)
        di = torch.randint(10_000, (65_536,), dtype=torch.int32, device=DEVICE)
        calls["lik"] = lambda: score_pairs_packed(q, docs, cu_q, cu_d, qi, di, max_seqlen_q=32, max_seqlen_d=300)
    elif kind.startswith("top100"):
        (nq, nd), (lq, ld) = shapes
        q, docs = unit(nq, lq, d), unit(nd, ld, d)
        calls["lik"] = lambda: lik.retrieve(q, docs, 100, normalize=False)
    elif kind in ("fp8", "int8"):
        from late_interaction_kernels.fp8 import maxsim_inference_fp8, quantize_fp8_per_token

        (nq, nd), (lq, ld) = shapes
        q, sq = quantize_fp8_per_token(unit(nq, lq, d))
        docs, sd = quantize_fp8_per_token(unit(nd, ld, d))
        calls["lik"] = lambda: maxsim_inference_fp8(q, docs, scale_Q=sq, scale_D=sd)
    elif kind.startswith("backward"):
        (nq, nd), (lq, ld) = shapes
        q = unit(nq, lq, d).requires_grad_()
        docs = (unit(nq, nd, ld, d) if "kd" in kind else unit(nd, ld, d)).requires_grad_()
        grad = torch.ones(nq, nd, device=DEVICE)

        def both(backward):
            scores = lik.maxsim(q, docs, backward=backward)
            return torch.autograd.grad(scores, (q, docs), grad.to(scores.dtype))

        calls["lik-unified"] = lambda: both("unified")
        calls["lik-lowmem"] = lambda: both("lowmem")
        import flash_maxsim

        def flash():
            scores = flash_maxsim.flash_maxsim_batched_train(q, docs, shared_docs="kd" not in kind)
            return torch.autograd.grad(scores, (q, docs), grad.to(scores.dtype))

        calls["flash"] = flash
    elif kind.startswith("head"):
        from late_interaction_kernels.fused_head import maxsim_from_hidden

        (nq, nd), (lq, ld) = shapes
        trains = "backward" in kind
        q = unit(nq, lq, d).requires_grad_(trains)
        hidden = torch.randn(nd, ld, 768, device=DEVICE, dtype=torch.bfloat16).requires_grad_(trains)
        w = (torch.randn(d, 768, device=DEVICE) / 28).to(torch.bfloat16).requires_grad_(trains)

        def head():
            scores = maxsim_from_hidden(q, hidden, w)
            return torch.autograd.grad(scores.sum(), (q, hidden, w)) if trains else scores

        calls["lik"] = head
    elif kind.startswith("residual"):
        from late_interaction_kernels.plaid import maxsim_residual_varlen

        bits, (nd, ld) = int(kind.split()[1][0]), shapes[-1]
        q, centroids = unit(1, 32, d), unit(16_384, d)
        codes = torch.randint(16_384, (nd * ld,), dtype=torch.int32, device=DEVICE)
        packed = torch.randint(256, (nd * ld, d * bits // 8), dtype=torch.uint8, device=DEVICE)
        weights = torch.linspace(-0.1, 0.1, 1 << bits, device=DEVICE)
        cu = torch.arange(nd + 1, dtype=torch.int32, device=DEVICE) * ld
        calls["lik"] = lambda: maxsim_residual_varlen(q, codes, packed, cu, centroids, weights, bits, max_seqlen_d=ld)
    elif kind.startswith("approx"):
        from late_interaction_kernels.plaid import plaid_approx_score

        nd, ld = shapes[-1]
        table = torch.randn(16_384, 32, device=DEVICE)
        codes = torch.randint(16_384, (nd, ld), dtype=torch.int32, device=DEVICE)
        full = torch.full((nd,), ld, dtype=torch.int32, device=DEVICE)
        calls["lik"] = lambda: plaid_approx_score(table, codes, full)
    return calls


def measured(name):
    """{peer: microseconds or text of the error}."""
    try:
        calls = peers(name)
    except Exception as error:
        return {"peers": f"{type(error).__name__}: {error}"}
    results = {}
    for peer, call in calls.items():
        try:
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            time, how = gpu_time(call)
            results[peer] = {"gpu_us": time, "how": how, "peak_bytes": torch.cuda.max_memory_allocated() - before}
        except Exception as error:
            results[peer] = {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
            torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return results


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(here, "..", "..", "target", "release", "cuda"))
    parser.add_argument("--only", default="")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--limit", type=int, default=3600, help="seconds that our side may take")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out")
    args = parser.parse_args()

    command = [args.binary, "--repeats", str(args.repeats), "--only", args.only]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=args.limit)
        output, status = run.stdout, run.returncode
    except subprocess.TimeoutExpired as stopped:
        # What was measured until then is worth having.
        output, status = (stopped.stdout or b"").decode(), 1
        print(f"ours: stopped after {args.limit} s")
    header, *ours = [json.loads(line) for line in output.splitlines()] or [{}]
    empty, _ = gpu_time(lambda: torch.cuda._sleep(1))
    record = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "level": header.get("level"),
        "empty_us": empty,
        "cases": [],
    }
    print(f"{record['device']}, empty kernel {empty:.1f} us")
    print(f"{'case':30} {'floor':>8} {'ours':>9} {'clean':>9} {'wall':>9} {'resident':>9} {'peers':>40} {'ratio':>6}  checked")
    for case in ours:
        fp8 = case["name"].startswith(("fp8", "int8"))
        flops = FP8_FLOPS_PER_US if fp8 else FLOPS_PER_US
        case["floor_us"] = max(case.get("bytes", 0) / BYTES_PER_US, case.get("flops", 0) / flops)
        case["peers"] = {} if args.no_peers else measured(case["name"])
        times = {p: r["gpu_us"] for p, r in case["peers"].items() if isinstance(r, dict) and "gpu_us" in r}
        best = min(times.values(), default=None)
        text = " ".join(f"{p} {t:.1f}" for p, t in times.items()) or "-"
        if "failed" in case:
            print(f"{case['name']:30} FAILED: {case['failed']}")
        else:
            ratio = f"{best / case['gpu_us']:.2f}" if best else "-"
            checked = {True: "ok", False: f"WRONG by {case.get('error')}", None: "-"}[case.get("correct")]
            print(
                f"{case['name']:30} {case['floor_us']:8.1f} {case['gpu_us']:9.1f} {case['gpu_clean_us']:9.1f} {case['wall_us']:9.1f} "
                f"{case.get('wall_resident_us', float('nan')):9.1f} "
                f"{text:>40} {ratio:>6}  {checked}",
                flush=True,
            )
        record["cases"].append(case)
        if args.out:
            os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
            with open(args.out, "w") as file:
                json.dump(record, file, indent=1)
    return status


if __name__ == "__main__":
    sys.exit(main())
