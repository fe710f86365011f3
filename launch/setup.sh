#!/bin/bash
# Creates .venv with everything that the other commands need; a second run does nothing.
#
#     bash launch/setup.sh           to run
#     bash launch/setup.sh test      to run, lint and test: an extra of setup.py
#
# Needs Debian or Ubuntu, git, and Python 3.11, 3.12 or 3.13. Takes the newest of these on the
# machine, or the one that PYTHON=3.12 or PYTHON=/path/python names. VENV=.venv-3.11 creates another
# environment, next to .venv.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${VENV:-.venv}"

# uv reads none of pip's settings. It must use only the machine's Pythons, trust the certificates
# that the machine trusts, and look for packages where pip is configured to look.
export UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}"
[[ -z ${PIP_INDEX_URL:-} ]] ||
  export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
[[ -z ${PIP_FIND_LINKS:-} ]] ||
  export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS// /,}}"
# A service account's home may not be writable and cannot hold a cache then.
[[ -w ${HOME:-/nonexistent} ]] ||
  export UV_CACHE_DIR="${UV_CACHE_DIR:-$PWD/.uv/cache}"

fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

# step TITLE COMMAND...: runs the command; prints its seconds, or its output if it fails.
step() {
  local title="$1" started="${EPOCHREALTIME//[.,]/}" output tenths
  shift
  output="$("$@" 2>&1 </dev/null)" ||
    fail "$title: failed." "$output" "the command was: $*" \
      'If no package was found: uv reads no pip.conf; set UV_DEFAULT_INDEX.'
  tenths=$(((${EPOCHREALTIME//[.,]/} - started + 50000) / 100000))
  printf 'setup: %-60s %4d.%d s\n' "$title" $((tenths / 10)) $((tenths % 10))
}

# apt_install PACKAGE...: as root; anyone else is told what to run.
apt_install() {
  ((EUID == 0)) && command -v apt-get >/dev/null || fail \
    "Missing, and only root can install it: $*. Run:" \
    "    sudo apt-get update && sudo apt-get install -y $*" \
    'and then this command again.'
  step 'apt-get update' apt-get update
  step "apt-get install $*" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "$@"
}

# Prints `3.12 /usr/bin/python3.12`; nothing if the command does not run, as a
# pyenv shim on PATH may not.
probe() {
  "$1" -c 'import ctypes, ssl, sys, zlib
print("%d.%d" % sys.version_info[:2], sys.executable)' 2>/dev/null </dev/null ||
    true
}

# candidates VERSION: prints where a Python of this version may be.
candidates() {
  type -aP "python$1" || true
  compgen -G "/usr/local/bin/python$1" || true
  compgen -G "/usr/bin/python$1" || true
  compgen -G "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$1.*/bin/python" || true
  type -aP python3 python || true
}

# Prints the version and the path of the Python to use. Each candidate is run to learn its version.
find_python() {
  local wanted='3.13 3.12 3.11' version candidate python
  if [[ -n ${PYTHON:-} ]]; then
    python="$(probe "$PYTHON")"
    [[ -z $python ]] || { echo "$python" && return; }
    wanted="${PYTHON#python}"
  fi
  for version in $wanted; do
    while read -r candidate; do
      python="$(probe "$candidate")"
      [[ ${python% *} != "$version" ]] || { echo "$python" && return; }
    done < <(candidates "$version")
  done
  [[ -n ${PYTHON:-} ]] || probe python3 # Too old or too new; the error message names it.
}

check_python() {
  local version="$1" named="${PYTHON:+PYTHON=$PYTHON}"
  case "$version" in
    3.11 | 3.12 | 3.13) return ;;
    '') named="${named:-PATH, /usr/bin and pyenv}: no such Python that runs" ;;
    *) named="${named:-python3} is Python $version" ;;
  esac
  fail "$named; valley_jax needs Python 3.11, 3.12 or 3.13." \
    'Install one (apt-get install python3 brings the newest of your system),' \
    'or name one that is elsewhere: PYTHON=/path/to/python3.12.'
}

# Sets `uv`: ours, the machine's, or one that a pip installs into .uv. With `--target`, pip does so
# even where the system's Python is managed externally.
find_uv() {
  local pip
  for uv in .uv/bin/uv uv; do
    ! "$uv" --version >/dev/null 2>&1 || return 0
  done
  uv=.uv/bin/uv
  for pip in "$python" python3 /usr/bin/python3; do
    ! "$pip" -m pip --version >/dev/null 2>&1 || break
    pip=
  done
  if [[ -z $pip ]]; then
    apt_install python3-pip
    pip=/usr/bin/python3
  fi
  step 'bring uv' "$pip" -m pip install --quiet --upgrade --target .uv uv
}

install() {
  local version python uv
  read -r version python < <(find_python) || true
  check_python "${version:-}"
  find_uv
  # Added to where it can be: a run may be using it at this moment.
  [[ $(cat "$venv/made-for" 2>/dev/null) == "$PWD $python" ]] ||
    step "make $venv with $python ($version)" make_venv
  step "install valley_jax${extra:+[$extra]}" "$uv" pip install \
    --python "$venv/bin/python" --editable ".${extra:+[$extra]}"
  step 'import jax and libseccomp' "$venv/bin/python" -c 'import jax, pyseccomp'
  # What was installed with an extra also serves without it; dev holds test.
  echo "$key" | tee "$venv/installed" >"$venv/installed${extra:+-$extra}"
  case "$extra" in
    dev | test,*) cp "$venv/installed" "$venv/installed-test" ;;
  esac
}

make_venv() {
  rm -rf "$venv"
  "$uv" venv --python "$python" "$venv" && echo "$PWD $python" >"$venv/made-for"
}

extra="${1:-}"
mkdir -p .uv
exec 9>.uv/lock
flock 9 # Two commands at once: the second waits, and finds the work done.
missing=() # The sandbox, and the compiler of C and C++ submissions.
command -v bwrap >/dev/null || missing+=(bubblewrap)
command -v g++ >/dev/null || missing+=(g++)
((${#missing[@]} == 0)) || apt_install "${missing[@]}"
key="$PWD $(sha256sum <setup.py) ${PYTHON:-newest}"
if [[ -x "$venv/bin/python" &&
  $(cat "$venv/installed${extra:+-$extra}" 2>/dev/null) == "$key" ]]; then
  echo "setup: $venv is up to date"
else
  install
fi
