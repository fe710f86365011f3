#!/bin/bash
# What launch/tpu.sh has each worker of a TPU do; nobody calls it by hand.
#
#     setup COMMIT       puts new code into ~/valley_jax, with its .venv
#     start COMMAND...   starts a command that outlives the connection
#     follow LINES       prints its log until it ends
#     stop SIGNAL        signals it, once; KILL always
#     report             says how it is
#     last               prints the end of its log
#
# Most end with a line `worker HOST STATE...`, which launch/tpu.sh counts: the
# exit status of `gcloud ... ssh` is 0 also where it left out a slice that it
# could not reach. ~/valley_jax_run has `pids`, `log` and, at the end, `status`.

set -euo pipefail
code="$HOME/valley_jax"
run="$HOME/valley_jax_run"
mkdir -p "$run"

answer() { echo "worker $HOSTNAME $*"; }

# is_running: by the command line too, as a reboot gives numbers anew.
is_running() {
  [[ -s $run/pids ]] && read -r attendant command_pid <"$run/pids" &&
    grep -q tpu_worker.sh "/proc/$attendant/cmdline" 2>/dev/null
}

report() {
  if is_running; then
    answer running
  elif [[ -s $run/status ]]; then
    answer ended "$(<"$run/status")"
  elif [[ -s $run/pids ]]; then
    answer lost # Nobody was left to write the status: the machine restarted.
  else
    answer idle
  fi
}

# The programs that launch/setup.sh asks root for, and a Python that is new
# enough: the images' Ubuntu 22.04 brings 3.10.
prepare() {
  if ! { command -v bwrap && command -v g++ && python3 -m pip --version; }; then
    sudo -n apt-get update
    sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install -y \
      --no-install-recommends -o DPkg::Lock::Timeout=600 \
      bubblewrap g++ python3-pip
  fi
  if [[ -z $(type -P python3.13 python3.12 python3.11) ]]; then
    [[ -x .uv/bin/uv ]] || python3 -m pip install --target .uv uv
    .uv/bin/uv python install 3.12
    PYTHON="$(.uv/bin/uv python find 3.12)"
    export PYTHON
  fi
}

install() {
  cd "$code"
  prepare
  bash launch/setup.sh tpu
  # Without it every host would train alone, on its CPU.
  .venv/bin/python -c 'import libtpu, requests'
}

setup() {
  local kept
  ! is_running || { answer busy && return; }
  for kept in .venv .uv; do
    [[ ! -e $code/$kept ]] || mv "$code/$kept" "$code.new/"
  done
  rm -rf "$code"
  mv "$code.new" "$code"
  install >"$run/setup.log" 2>&1 & # Where `set -e` holds; not so within `if`.
  if wait $!; then
    answer ready "$1"
  else
    tail -n 20 "$run/setup.log" | sed "s/^/$HOSTNAME: /"
    answer failed
  fi
}

# attend COMMAND...: runs it and writes down how it ended.
attend() {
  local status=0
  cd "$code"
  export PATH="$code/.venv/bin:$PATH" PYTHONUNBUFFERED=1
  "$@" &
  echo "$$ $!" >"$run/pids"
  wait $! || status=$?
  echo "$status" >"$run/status"
}

start() {
  ! is_running || { answer busy && return; }
  rm -f "$run/pids" "$run/status" "$run/stopped"
  [[ ! -e $run/log ]] || mv "$run/log" "$run/log.before"
  # A session of its own: what ends the connection does not end the command.
  setsid bash "$code/launch/tpu_worker.sh" attend "$@" \
    >"$run/log" 2>&1 </dev/null &
  until [[ -s $run/pids ]]; do sleep 0.05; done
  report
}

stop() {
  # A second SIGTERM would end the command before it has saved. If two come
  # at once only one can make the file.
  if is_running; then
    if (set -o noclobber && : >"$run/stopped") 2>/dev/null || [[ $1 == KILL ]]
    then
      kill -s "$1" "$command_pid" || true
    fi
  fi
  report
}

follow() {
  if is_running; then
    tail -n "$1" -s 0.2 --pid="$command_pid" -f "$run/log"
    while is_running; do sleep 0.05; done # The status is about to be written.
  else
    tail -n "$1" "$run/log"
  fi
}

last() { tail -n 20 "$run/log" | sed "s/^/$HOSTNAME: /"; }

"$@"
