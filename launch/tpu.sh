#!/bin/bash
# Runs a command on Cloud TPU VMs, on a slice or several, by means of gcloud.
#
#     bash launch/tpu.sh create NAME TYPE [ZONE...] [--spot] [--node-count=N]
#         asks for N slices of TYPE (v5p-16, v6e-64, ...) and waits for them; of
#         several zones takes the first that has them. Other flags go to gcloud
#     bash launch/tpu.sh setup NAME           brings the committed code there
#     bash launch/tpu.sh run NAME -- python -m valley_jax.train ... \
#         --workdir gs://BUCKET/RUN
#         runs the same command on all workers of all slices, shows the log of
#         the first, and exits as the run does. The run goes on when you leave
#     bash launch/tpu.sh loop NAME -- COMMAND...
#         `setup` and `run`, again after a preemption, with a new TPU; ends with
#         success, a failure, or 3 attempts in a row without a new checkpoint
#     bash launch/tpu.sh logs NAME         the end of the log, and what follows
#     bash launch/tpu.sh status NAME
#     bash launch/tpu.sh stop NAME [KILL]  SIGTERM: saves, leaves with 75; waits
#     bash launch/tpu.sh delete NAME       gives it back: until then it costs
#
# Before the first time: `gcloud init`, and for several workers `ssh-add
# ~/.ssh/google_compute_engine`. workdir/tpu/NAME remembers what was asked for;
# without it, ZONE=... says where NAME is. TPU_SSH='--internal-ip' or
# '--tunnel-through-iap' reaches workers that have no address of their own.
#
# JAX learns from the VMs' metadata of the other workers and, for queued
# resources, of the other slices, so no MEGASCALE_* variable is set here.
#
# This has been run against a fake gcloud only, never on Google's cloud.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
poll="${TPU_POLL:-30}" # seconds
answers=()             # of the workers: `worker HOST STATE...`
# shellcheck source=launch/tpu_resource.sh
source launch/tpu_resource.sh

say() { printf 'tpu: %s\n' "$@" >&2; }

fail() {
  say "$@"
  exit 1
}

((BASH_VERSINFO[0] >= 5)) || fail "This is bash $BASH_VERSION; 5 is needed." \
  'Where it is that of a Mac: brew install bash.'

# on NODE WORKER WORD...: launch/tpu_worker.sh there, with exactly these words.
on() {
  local command
  command="bash valley_jax/launch/tpu_worker.sh$(printf ' %q' "${@:3}")"
  reach "$1" "$2" "$command"
}

# reach NODE WORKER COMMAND. A connection to a machine that is gone ends.
reach() {
  # shellcheck disable=SC2086
  resources ssh "$name" --node="$1" --worker="$2" --command="$3" \
    --ssh-flag='-o ServerAliveInterval=30' ${TPU_SSH:-}
}

# hear COMMAND...: sets `answers` to a line of each worker; fails if one misses.
hear() {
  local wanted
  wanted="$(nodes 'networkEndpoints.len()' | awk '{n += $1} END {print n + 0}')"
  "$@" >"$scratch/out" 2>"$scratch/err" || true
  mapfile -t answers < <(grep '^worker ' "$scratch/out" | sort)
  ((wanted > 0 && ${#answers[@]} == wanted)) || {
    tail -n 20 "$scratch/err" >&2
    say "${#answers[@]} of $wanted workers of $name answered."
    return 1
  }
}

ask() { hear on all all "$@"; }

# those STATE: the hosts whose answer was this.
those() { printf '%s\n' "${answers[@]}" | awk -v s="$1" '$3 == s {print $2}'; }

# verdict: the exit status of the run, from what its workers answered.
verdict() {
  printf '%s\n' "${answers[@]}" | awk '
    $3 == "lost" || $4 == 75 {again = 1}
    $3 == "ended" && $4 != 0 && !bad {bad = $4}
    $3 != "ended" {unknown = 1}
    END {print again ? 75 : (bad ? bad : unknown + 0)}'
}

pack() {
  local dirty
  dirty="$(git status --porcelain)"
  [[ -z $dirty ]] || fail 'What runs is what is committed, and this is not:' \
    "$dirty" "Commit it, ignore it, or \`git stash -u\`."
  git archive --format=tar.gz -o "$memory.tar.gz" HEAD
  git rev-parse --short=12 HEAD >"$memory.commit"
}

setup() {
  local commit file new=valley_jax.new
  commit="$(<"$memory.commit")" file="valley_jax-$commit.tar.gz"
  say "setting up $commit on $name"
  # shellcheck disable=SC2086
  resources scp "$memory.tar.gz" "$name:$file" --node=all --worker=all \
    ${TPU_SSH:-} >&2 || fail "The code did not reach all workers of $name." \
    'Several need your key in the agent: ssh-add ~/.ssh/google_compute_engine'
  hear reach all all "rm -rf $new && mkdir $new && tar -xzf $file -C $new &&
    rm $file && bash $new/launch/tpu_worker.sh setup $commit" ||
    fail "Call \`setup $name\` again; what is installed stays."
  refuse_busy
  if [[ -n $(those failed) ]]; then
    grep -v '^worker ' "$scratch/out" >&2 || true
    fail "launch/setup.sh failed on: $(those failed | xargs). See above."
  fi
  say "$commit is ready on ${#answers[@]} workers"
}

refuse_busy() {
  [[ -z $(those busy) ]] || fail "A command runs on: $(those busy | xargs)." \
    "Follow it with \`logs $name\`, or end it with \`stop $name\`."
}

# bucket COMMAND...: its --workdir, which all hosts have to share.
bucket() {
  local word next='' found=''
  for word in "$@"; do
    [[ $next != --workdir ]] || found="$word"
    [[ $word != --workdir=* ]] || found="${word#*=}"
    next="$word"
  done
  [[ $found == gs://?* ]] || fail "--workdir is '$found'. The hosts share a" \
    'bucket, and what a VM has is lost with it: --workdir gs://BUCKET/RUN.'
  echo "${found%/}"
}

run() {
  ask start "$@" ||
    fail "See \`status $name\`; end what runs with \`stop $name\`."
  refuse_busy
  say "runs on ${#answers[@]} workers; this is the log of the first"
  trap 'say "It goes on. See \`logs $name\`, \`stop $name\`."; exit 130' INT
  watch +1
}

# watch LINES: shows the log until the run has ended everywhere; sets `outcome`.
watch() {
  local lines="$1" left=6 state
  while ((left)); do
    on 0 0 follow "$lines" || true # Ends with the run, or the connection.
    lines=10
    state="$(condition)"
    if is_lost "$state"; then
      say "$name is $state." \
        "Started again, the run goes on from its checkpoint"
      outcome=75
      return
    fi
    if [[ $state == READY ]]; then
      ! ask report || [[ -n $(those running) ]] || break
      # A worker that waits for others which have ended waits in vain.
      [[ -z $(those ended) ]] || left=$((left - 1))
    fi
    sleep "$poll"
  done
  outcome="$(verdict)"
  ((left)) || end_the_rest
  ((outcome == 0 || outcome == 75)) || explain
}

end_the_rest() {
  say "gave up waiting for: $(those running | xargs)"
  ((outcome)) || outcome=1
  [[ -z $(those running) ]] || stop KILL >&2
}

explain() {
  on all all last >"$memory.log" 2>/dev/null || true
  tail -n 40 "$memory.log" >&2
  say "The run failed with exit status $outcome:" "${answers[@]}" \
    "Each worker's last lines are in $PWD/$memory.log."
}

stop() {
  local left
  ask stop "$1" || fail "Call \`stop $name\` again."
  for ((left = 40; left; left--)); do
    [[ -n $(those running) ]] || { printf '%s\n' "${answers[@]}" && return; }
    sleep "$poll"
    ask report || true
  done
  fail "Still running: $(those running | xargs). Saving may take long:" \
    "call this again, or lose what came after the last checkpoint" \
    "with \`stop $name KILL\`."
}

# shellcheck disable=SC2329
status() {
  say "$name in $zone: $(condition)"
  nodes 'name.basename(),state'
  ask report || true
  printf '%s\n' "${answers[@]}"
}

# ---- Again and again.

attempt() {
  local state
  while state="$(condition)" && [[ $state == UNKNOWN ]]; do sleep "$poll"; done
  if [[ $state != ABSENT ]] && is_lost "$state"; then
    say "$name is $state; giving it back"
    give_back
  fi
  [[ $state == READY ]] || create
  setup
  run "$@"
  exit "$outcome"
}

# A slice may be gone a minute before anybody says so.
becomes_lost() {
  local left
  for ((left = 3; left; left--)); do
    ! is_lost "$(condition)" || return 0
    sleep "$poll"
  done
  return 1
}

loop() {
  local workdir idle=0 before now code
  workdir="$(bucket "$@")"
  pack
  before="$(checkpoints)"
  while :; do
    set +e # A condition, as in `if attempt`, would not stop at its errors.
    (set -e; attempt "$@")
    code=$?
    set -e
    ((code != 0 && code != 130)) || exit "$code" # Done, or interrupted here.
    ((code == 75)) || becomes_lost ||
      fail "Stopped: $name is there, and the run failed (exit status $code)."
    now="$(checkpoints)"
    [[ $now == "$before" ]] && idle=$((idle + 1)) || idle=0
    ((idle < 3)) || fail "Stopped: 3 attempts in a row, and no new checkpoint" \
      "in $workdir/checkpoints. Save more often (checkpoint_every), or see" \
      'the log. (It also ends here if you may not list the bucket from here.)'
    before="$now"
    say 'starting again'
  done
}

checkpoints() {
  gc storage ls "$workdir/checkpoints/" 2>/dev/null | sort || true
}

main() {
  local verb="${1:-}"
  name="${2:-}"
  memory="workdir/tpu/$name"
  if [[ ! $name =~ ^[a-z][a-z0-9-]*$ ||
    ! $verb =~ ^(create|setup|run|loop|logs|status|stop|delete)$ ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' launch/tpu.sh >&2 # The comment above.
    exit 2
  fi
  mkdir -p workdir/tpu
  scratch="$(mktemp -d)" # Its own: `stop` may run beside `run`.
  trap 'rm -rf "$scratch"' EXIT
  shift 2
  recall
  case "$verb" in
    create) wish "$@" ;;
    run | loop)
      [[ ${1:-} == -- && $# -gt 1 ]] || fail "Usage: $verb NAME -- COMMAND..."
      shift
      bucket "$@" >/dev/null
      ;;
  esac
  [[ -n $zone${zones[0]} ]] ||
    fail "The zone of $name is not known. Set ZONE=..."
  case "$verb" in
    create) create ;;
    setup)
      pack
      setup
      ;;
    run)
      run "$@"
      exit "$outcome"
      ;;
    loop) loop "$@" ;;
    logs) on 0 0 follow 100 ;;
    stop) stop "${1:-TERM}" ;;
    status | delete) "$verb" ;;
  esac
}

main "$@"
exit
