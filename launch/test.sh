#!/bin/bash
# Lints and tests; arguments go to pytest: bash launch/test.sh -k packing.
#
# With the newest Python; PYTHON=3.11 VENV=.venv-3.11 for another, beside it.
# EXTRA=test,parity also installs torch and so compares with it.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh "${EXTRA:-test}"
venv="${VENV:-.venv}"
export PATH="$PWD/$venv/bin:$PATH"
# Where it is set, every start compiles JAX's sources anew: 5 s of each.
unset PYTHONDONTWRITEBYTECODE
# Ask no registry whether there is a newer pyright.
export PYRIGHT_PYTHON_IGNORE_WARNINGS=1
echo 'test: ruff'
ruff check
echo 'test: pyink'
pyink --check .
echo 'test: pyright'
pyright --pythonpath "$venv/bin/python"
echo 'test: pytest'
# A worker takes whole files: what a file compiles once serves all of its tests.
pytest -n 2 --dist=loadfile "$@"
