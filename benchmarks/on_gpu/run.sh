#!/bin/sh
# Runs benchmarks/gpu.py out of an unpacked bundle (`make gpu-bundle`), with the arguments given, on a
# machine with a GPU and no network. Its Python has torch, triton and transformers. Beside it are written
# the clocks of the GPU, into clocks.csv, and how many kernels came along and had to be compiled.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sources="$here/skipserve"
export PYTHONPATH="$here/site:$sources/policies:$sources/kernels:$sources/server"
export TRITON_CACHE_DIR="$here/triton-cache" TRITON_STORE_BINARY_ONLY=1
# Triton notes where its files lie: they have moved.
sed -i "s#\"/[^\"]*/triton-cache/#\"$TRITON_CACHE_DIR/#g" "$TRITON_CACHE_DIR"/*/__grp__*

out=${OUT:-$here/out}
mkdir -p "$out"
if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=clocks.sm,power.draw,clocks_throttle_reasons.active --format=csv -l 2 \
        > "$out/clocks.csv" &
    trap 'kill $!' EXIT
fi

count() { find "$TRITON_CACHE_DIR" -mindepth 1 -maxdepth 1 | wc -l; }
before=$(count)
status=0
"${PYTHON:-python3}" "$sources/benchmarks/gpu.py" "$@" || status=$?
echo "kernels: $before came along, $(($(count) - before)) were compiled here" | tee "$out/kernels.txt"
exit $status
