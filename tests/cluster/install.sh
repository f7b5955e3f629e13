#!/usr/bin/env bash
# Installs SLURM from Debian's packages if it is missing. Needs root; takes about ten seconds.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"   # where Debian keeps daemons; not in every user's PATH
for program in slurmctld slurmd sbatch munged; do
  command -v "$program" >/dev/null || missing=yes
done
[ -n "${missing:-}" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "the cluster tests need SLURM (munge slurmctld slurmd slurm-client): install it, or run as root" >&2; exit 2; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends munge slurmctld slurmd slurm-client >/dev/null
