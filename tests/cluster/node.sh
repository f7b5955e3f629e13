#!/usr/bin/env bash
# Starts (again) the slurmd of node number N of the cluster below FOLDER; start.sh calls it for each node.
#   tests/cluster/node.sh FOLDER N
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"   # where Debian keeps daemons, and not every user looks
export SLURM_CONF=$1/etc/slurm.conf
# The namespaces give the node its own host name, and names for its peers that hold on the nodes only.
unshare --uts --mount --propagation private bash -c \
  'hostname "n$1"; mount --bind "$2/etc/hosts" /etc/hosts; exec slurmd -N "n$1" -f "$SLURM_CONF"' _ "$2" "$1" \
  </dev/null >"$1/log/slurmd.n$2.out" 2>&1
