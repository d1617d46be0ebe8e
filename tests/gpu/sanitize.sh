#!/usr/bin/env bash
# CUDA kernels under compute-sanitizer: stored results with memcheck, synccheck and racecheck. Usage:
#
#   tests/gpu/sanitize.sh PROGRAM [TOOL…]        PROGRAM is the command `maxsim`; TOOL one of memcheck, synccheck, racecheck
#
# MAXSIM_SANITIZE_CASES: file of cases [tests/golden/lik_reference.safetensors]; MAXSIM_SANITIZE_OPS: operators, with commas [all];
# MAXSIM_CUDA_ARCH: kernels of an older architecture. compute-sanitizer is the one on the path or of /usr/local/cuda, else the one of
# the PyPI package nvidia-cuda-sanitizer-api; COMPUTE_SANITIZER names another.
#
# Exit status: 0 nothing was found, 1 something was or a case failed, 77 there is no compute-sanitizer.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
program=${1:?usage: tests/gpu/sanitize.sh PROGRAM [TOOL…]}
shift
tools=("$@")
[ $# -gt 0 ] || tools=(memcheck synccheck racecheck)
cases=${MAXSIM_SANITIZE_CASES:-$root/tests/golden/lik_reference.safetensors}
# 13.0 is what NVRTC and the driver are of.
package=nvidia-cuda-sanitizer-api==13.0.85

find_sanitizer() {
    local found
    for found in "${COMPUTE_SANITIZER:-}" "$(command -v compute-sanitizer)" /usr/local/cuda/bin/compute-sanitizer; do
        [ -n "$found" ] && [ -e "$found" ] && { echo "$found"; return 0; }
    done
    local folder=$root/target/sanitizer
    if [ ! -e "$folder/nvidia/cu13/bin/compute-sanitizer" ]; then
        pip3 download -q --no-deps -d "$folder" "$package" >&2 &&
            python3 -m zipfile -e "$folder"/nvidia_cuda_sanitizer_api-*.whl "$folder" >&2 || return 1
        chmod +x "$folder/nvidia/cu13/bin/compute-sanitizer" "$folder"/nvidia/cu13/lib/* 2>/dev/null
    fi
    echo "$folder/nvidia/cu13/bin/compute-sanitizer"
}

sanitizer=$(find_sanitizer) || { echo "compute-sanitizer is neither installed nor to be had from PyPI ($package)"; exit 77; }
"$sanitizer" --version | tail -n 1
# Where the package keeps its parts: they lie beside the program of a toolkit, but not of the package.
library=$(dirname "$sanitizer")/../lib
[ -e "$library/libsanitizer-public.so" ] && export LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
arguments=(selftest --backend cuda --cases "$cases")
[ -n "${MAXSIM_SANITIZE_OPS:-}" ] && arguments+=(--ops "$MAXSIM_SANITIZE_OPS")

status=0
# Compiled before, so that the tools look at runs and not at compilation.
"$program" "${arguments[@]}" | tail -n 1 || status=1
for tool in "${tools[@]}"; do
    log=$(mktemp)
    started=$SECONDS
    extra=()
    [ "$tool" = racecheck ] && extra=(--racecheck-report all)
    if "$sanitizer" --tool "$tool" "${extra[@]}" --error-exitcode 9 --print-limit 20 "$program" "${arguments[@]}" >"$log" 2>&1; then
        verdict=ok
    else
        verdict=FAIL
        status=1
    fi
    echo "$verdict  $tool ($((SECONDS - started)) s)"
    if [ $verdict = ok ]; then grep -h "passed\|SUMMARY" "$log"; else tail -n 200 "$log"; fi
    rm -f "$log"
done
exit $status
