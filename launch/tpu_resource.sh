#!/bin/bash
# The queued resource behind a TPU: asked for, awaited, looked at, given back.
#
# A part of launch/tpu.sh. `name` is what the request is called, `zone` where it
# is, `memory` the file that remembers `type`, `zones` and `flags`: what to ask
# for again. `scratch` is a directory. The flags are those of gcloud 528.
#
# shellcheck disable=SC2154

set -euo pipefail

# A stdin of its own, or ssh would take ours.
gc() { gcloud --quiet "$@" </dev/null; }
resources() { gc compute tpus queued-resources "$@" --zone="$zone"; }

remember() {
  declare -p type zone zones flags | sed 's/^declare [^ ]* //' >"$memory"
}

recall() {
  type='' zone='' zones=() flags=()
  # shellcheck disable=SC1090
  [[ ! -e $memory ]] || source "$memory"
  [[ -n $zone ]] ||
    zone="$(gc config get-value compute/zone 2>/dev/null || true)"
  zone="${ZONE:-$zone}"
  ((${#zones[@]})) || zones=("$zone")
}

runtime() {
  case "$type" in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v[234]-*) echo tpu-ubuntu2204-base ;;
  esac
}

# nodes FORMAT: the slices, a line for each.
nodes() {
  gc compute tpus tpu-vm list --zone="$zone" \
    --filter="queuedResource~/$name\$" --format="value($1)"
}

# condition: READY, ABSENT, UNKNOWN if nobody answers, or the state that is in
# the way: the request's, or that of a slice.
condition() {
  local state slices
  if ! state="$(resources describe "$name" --format='value(state.state)' \
    2>"$scratch/err")"; then
    if grep -q NOT_FOUND "$scratch/err"; then echo ABSENT && return; fi
    cat "$scratch/err" >&2
    echo UNKNOWN
  elif [[ $state != ACTIVE ]]; then
    echo "$state"
  elif ! slices="$(nodes state)" || [[ -z $slices ]]; then
    echo UNKNOWN
  else
    # The request may call itself active for a while after a slice has gone.
    grep -vxm 1 READY <<<"$slices" || echo READY
  fi
}

is_lost() {
  case "$1" in
    FAILED | SUSPEND* | DELETING | ABSENT) return 0 ;;    # the request
    PREEMPTED | TERMINATED | STOPP* | HIDDEN) return 0 ;; # a slice
  esac
  return 1
}

# wish TYPE [ZONE...] [--FLAG...]
wish() {
  local slices=1 given=()
  type="${1:-}" flags=()
  while shift && (($#)); do
    case "$1" in
      --node-count) slices="${2:-}" && shift ;;
      --node-count=*) slices="${1#*=}" ;;
      -*) flags+=("$1") ;;
      *) given+=("$1") ;;
    esac
  done
  ((${#given[@]} == 0)) || zones=("${given[@]}")
  if [[ $slices == 1 ]]; then
    flags+=("--node-id=$name")
  else
    flags+=("--node-count=$slices") # Named NAME-0, NAME-1, ...
  fi
  if [[ "${flags[*]}" != *--runtime-version* ]]; then
    [[ -n $(runtime) ]] || fail "No system is known for TYPE '$type'." \
      'Known: v6e-*, v5p-*, v5litepod-* (v5e), v4-*, v3-*, v2-*. For another,' \
      'give --runtime-version=. (TPU7x is had by GKE, not by this interface.)'
    flags+=("--runtime-version=$(runtime)")
  fi
}

create() {
  local asked=()
  [[ -n $type ]] || fail "What $name shall be is not known here." \
    "Say so once: create $name TYPE ZONE..."
  for zone in "${zones[@]}"; do
    if [[ $(condition) == ABSENT ]]; then
      resources create "$name" --accelerator-type="$type" "${flags[@]}" >&2 ||
        continue # gcloud has said why.
    fi
    asked+=("$zone")
  done
  ((${#asked[@]})) || fail "Nobody took the request for $type in ${zones[*]}" \
    '(reasons above). See which zones have it, and your quota there.'
  zone="${asked[0]}"
  remember
  await "${asked[@]}"
}

# await ZONE...: until it is ready in one; the other zones get theirs back.
await() {
  local -A was=()
  local now other left=1 polls
  for ((polls = 0; left; polls++)); do
    ((polls == 0)) || sleep "$poll"
    left=0
    for zone in "$@"; do
      now="$(condition)"
      if [[ $now != "${was[$zone]:-}" ]] || ((polls % 20 == 0)); then
        say "$(date +%T) $name ($type) in $zone: $now"
      fi
      was[$zone]="$now"
      if [[ $now == READY ]]; then
        for other in "$@"; do
          [[ $other == "$zone" ]] || zone="$other" give_back ||
            say "$name in $other is NOT given back, and may cost: see above."
        done
        remember
        return
      fi
      is_lost "$now" || left=1
    done
  done
  resources describe "$name" --format='yaml(state)' >&2 || true
  fail "$name was not granted. Give it back with \`delete $name\`, and create" \
    'it again: later, in another zone, or without --spot.'
}

give_back() { resources delete "$name" --force >&2; }

delete() {
  for zone in "${zones[@]}"; do
    [[ $(condition) == ABSENT ]] || give_back ||
      fail "$name in $zone is NOT deleted, and may cost: see above."
  done
  rm -f "$memory" "$memory".*
}
