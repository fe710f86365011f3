#!/bin/bash
# Lints and tests. Arguments are passed to pytest: bash launch/test.sh -k packing.
#
# `bash launch/test.sh --all` also runs the tests that are marked `long`, and then all tests that
# compute with JAX on Python 3.11, next to torch, with which the students are compared there.
#
# PYTHON=3.11 VENV=.venv-3.11 choose another Python and another environment. EXTRA=test,parity
# installs torch, too.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh "${EXTRA:-test}"
venv="${VENV:-.venv}"
export PATH="$PWD/$venv/bin:$PATH"
# With it, every start would compile JAX's sources again, which takes 5 s.
unset PYTHONDONTWRITEBYTECODE
# Do not ask a registry whether there is a newer pyright.
export PYRIGHT_PYTHON_IGNORE_WARNINGS=1
all=''
if [[ ${1:-} == --all ]]; then
  all=1
  shift
  set -- -m 'long or not long' "$@"
fi
# A worker takes whole files: what a file compiles once serves all of its tests.
parallel=(-n 2 --dist=loadfile)

echo 'test: ruff'
ruff check
echo 'test: pyink'
pyink --check .
echo 'test: pyright and pytest'
report=$(mktemp)
trap 'rm -f "$report"' EXIT
pyright --pythonpath "$venv/bin/python" >"$report" &
pyright_job=$!
status=0
pytest "${parallel[@]}" "$@" || status=$?
wait "$pyright_job" || status=1
echo 'test: pyright'
cat "$report"
if [[ -n $all && $status == 0 ]]; then
  PYTHON=3.11 VENV=.venv-3.11 bash launch/setup.sh test,parity
  echo 'test: pytest on Python 3.11'
  # Without `plan`: JAX's profiler crashes there in a process that has compiled for TPUs. Without
  # the judge, which does not depend on JAX.
  .venv-3.11/bin/python -m pytest "${parallel[@]}" --ignore=tests/verbs/test_plan.py \
    --ignore=tests/execution --ignore=tests/test_truth.py --ignore=tests/test_setup.py "$@" ||
    status=$?
fi
exit "$status"
