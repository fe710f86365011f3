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
cd "$root"
.venv/bin/python -m valley_jax.study --config configs/valley.py:mini \
  --workdir "$workdir" "$@"
echo "The report: $workdir/report.html"
