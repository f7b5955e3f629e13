#!/usr/bin/env bash
# Starts or restarts the slurmd of node N of the cluster in FOLDER; start.sh calls it for each node.
#   tests/cluster/node.sh FOLDER N
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"   # where Debian keeps daemons; not in every user's PATH
export SLURM_CONF=$1/etc/slurm.conf
# The namespaces give the node its own host name, and an /etc/hosts that only the nodes see.
unshare --uts --mount --propagation private bash -c \
  'hostname "n$1"; mount --bind "$2/etc/hosts" /etc/hosts; exec slurmd -N "n$1" -f "$SLURM_CONF"' _ "$2" "$1" \
  </dev/null >"$1/log/slurmd.n$2.out" 2>&1
