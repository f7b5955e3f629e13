#!/usr/bin/env bash
# Stops what start.sh started in FOLDER: the jobs first, then its daemons, each by its pid file.
set -uo pipefail
export PATH="$PATH:/usr/sbin:/sbin"   # where Debian keeps daemons; not in every user's PATH
ROOT=${1:?"usage: stop.sh FOLDER"}
[ -f "$ROOT/env.sh" ] || exit 0
. "$ROOT/env.sh"
timeout 10 scancel --full --state=PENDING,RUNNING 2>/dev/null
timeout 10 scancel -u "$(id -un)" 2>/dev/null
for _ in $(seq 30); do [ -z "$(timeout 10 squeue -h -o %A 2>/dev/null)" ] && break; sleep 0.5; done
for file in "$ROOT"/run/slurmd.*.pid "$ROOT"/run/slurmctld.pid "$ROOT"/run/munged.pid; do
  pid=$(cat "$file" 2>/dev/null) || continue
  kill -TERM "$pid" 2>/dev/null
  for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
  kill -KILL "$pid" 2>/dev/null
done
exit 0
