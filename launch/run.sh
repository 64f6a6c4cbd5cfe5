#!/usr/bin/env bash
# Keeps a prompt-tuning command running on this machine, whoever is logged in.
#
#   run.sh start MAX_CRASHES PREEMPTED COMMAND FLAG…   starts it in the background, unless it runs already
#   run.sh follow                                      shows its output until it has ended
#   run.sh status                                      prints: running, ended CODE, or stopped
#
# It starts again, and goes on from its last save, after exit code PREEMPTED, and after at most MAX_CRASHES other exit
# codes; 2 is an error that another attempt would meet again. When the machine is shut down (SIGTERM) it passes that on,
# waits for the save, and leaves no exit code: it has not ended.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
log=$here/log
pid_file=$here/loop.pid
exit_file=$here/exit_code
argv_file=$here/argv

is_running() {
  [[ -f $pid_file ]] && kill -0 "$(<"$pid_file")" 2>/dev/null
}

start() {
  local typed
  typed=$(printf '%q ' "${@:3}")
  if is_running; then
    if [[ $(<"$argv_file") == "$typed" ]]; then
      echo "run: it is running already"
      return 0
    fi
    echo "run: another command is running here: $(<"$argv_file")" >&2
    return 3
  fi
  rm -f "$exit_file"
  printf '%s\n' "$typed" >"$argv_file"
  # A session of its own: the end of this login does not end it.
  setsid nohup bash "$here/run.sh" loop "$@" >>"$log" 2>&1 </dev/null &
  echo $! >"$pid_file"
  echo "run: started"
}

loop() {
  local max_crashes=$1 preempted=$2 crashes=0 code child=''
  shift 2
  stopping=
  trap 'stopping=yes; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM
  while true; do
    echo "run: $(date --utc +%FT%TZ) starts, after $crashes crashes"
    "$here/venv/bin/prompt-tuning" "$@" &
    child=$!
    code=0
    wait "$child" || code=$?
    # A signal ends the wait before the program has saved.
    while kill -0 "$child" 2>/dev/null; do
      code=0
      wait "$child" || code=$?
    done
    echo "run: $(date --utc +%FT%TZ) ended with exit code $code"
    if [[ -n $stopping ]]; then
      return 0
    fi
    if ((code == 0 || code == 2)); then
      break
    fi
    if ((code != preempted)); then
      crashes=$((crashes + 1))
    fi
    if ((crashes > max_crashes)); then
      echo "run: gives up after $crashes crashes"
      break
    fi
  done
  echo "$code" >"$exit_file"
}

status() {
  if is_running; then
    echo running
  elif [[ -f $exit_file ]]; then
    echo "ended $(<"$exit_file")"
  else
    echo stopped
  fi
}

follow() {
  if is_running; then
    tail --lines=200 --sleep-interval=0.2 --pid="$(<"$pid_file")" --follow=name "$log"
  else
    tail --lines=200 "$log"
  fi
}

case ${1:-} in
  start | loop) "$@" ;;
  follow | status) "$1" ;;
  *)
    sed -n '2,6p' "$here/run.sh" >&2
    exit 2
    ;;
esac
