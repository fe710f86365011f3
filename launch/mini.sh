#!/bin/bash
# Runs the whole flow on the embedded world, on two CPU cores.
#
#     bash launch/mini.sh [WORKDIR] [--config.FIELD=VALUE ...]
#
# A second call with the same WORKDIR (default workdir/mini) resumes it.

set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
workdir="$root/workdir/mini"
if (($#)) && [[ $1 != -* ]]; then
  workdir="$(realpath -m -- "$1")"
  shift
fi
bash "$root/launch/setup.sh"
# XLA's buffers come and go at every step; let malloc keep their pages instead
# of asking the kernel for zeroed ones again and again.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592
export MALLOC_TOP_PAD_=268435456 JAX_PLATFORMS=cpu
unset PYTHONDONTWRITEBYTECODE # Or JAX's sources are compiled at every start.
export TRANSFORMERS_VERBOSITY=error # No banner that torch is not here.
cd "$root"
.venv/bin/python -m valley_jax.study --config configs/valley.py:mini \
  --workdir "$workdir" "$@"
echo "The report: $workdir/report.html"
