#!/usr/bin/env bash
# A private SLURM cluster of two nodes on this machine: one slurmctld, one slurmd per node, its own munged, all files in one folder.
# Prints the file to source. It does not touch /etc, systemd, cgroups or the system's munge. Needs root, to give each node a host name.
#   tests/cluster/start.sh FOLDER      all users must be able to enter every folder above FOLDER (munge requires it)
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"   # where Debian keeps daemons; not in every user's PATH
ROOT=${1:?"usage: start.sh FOLDER"}
NODES=2 CPUS=4 GPUS=2 PORT=${SLURM_TEST_PORT:-18000}

mkdir -p "$ROOT"/{etc,run,log,state,spool/n1,spool/n2,dev}
chmod 755 "$ROOT"; chmod 700 "$ROOT/state"
(umask 077; [ -s "$ROOT/etc/munge.key" ] || head -c 1024 /dev/urandom >"$ROOT/etc/munge.key")

# The File= of a GPU must be a character device, otherwise jobs get no CUDA_VISIBLE_DEVICES; 1,3 is /dev/null.
for g in $(seq 0 $((GPUS - 1))); do [ -c "$ROOT/dev/nvidia$g" ] || mknod "$ROOT/dev/nvidia$g" c 1 3; done
{ echo "127.0.0.1 localhost $(hostname -s)"; for i in $(seq $NODES); do echo "127.0.0.$((10 + i)) n$i"; done; } >"$ROOT/etc/hosts"

cat >"$ROOT/etc/slurm.conf" <<CONF
ClusterName=isograft
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also the time that a requeued job waits before it starts again: 120 s by default
AuthInfo=socket=$ROOT/run/munge.socket,cred_expire=5
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd.%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MinJobAge=3600
JobRequeue=1
ReturnToService=2
KillWait=5
# a node that does not answer for so many seconds counts as lost, and its job is requeued: 300 by default
SlurmdTimeout=15
OverTimeLimit=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=1000
SlurmdParameters=config_overrides
GresTypes=gpu
$(for i in $(seq $NODES); do echo "NodeName=n$i NodeHostname=n$i NodeAddr=127.0.0.$((10 + i)) Port=$((PORT + i)) CPUs=$CPUS RealMemory=8000 Gres=gpu:$GPUS State=UNKNOWN"; done)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP OverSubscribe=NO
CONF
echo "NodeName=n[1-$NODES] Name=gpu File=$ROOT/dev/nvidia[0-$((GPUS - 1))]" >"$ROOT/etc/gres.conf"
echo "CgroupAutomount=no" >"$ROOT/etc/cgroup.conf"
echo "export SLURM_CONF=$ROOT/etc/slurm.conf" >"$ROOT/env.sh"
export SLURM_CONF=$ROOT/etc/slurm.conf

munged --socket="$ROOT/run/munge.socket" --key-file="$ROOT/etc/munge.key" --pid-file="$ROOT/run/munged.pid" \
  --log-file="$ROOT/log/munged.log" --seed-file="$ROOT/run/munge.seed"
slurmctld -f "$SLURM_CONF" </dev/null >"$ROOT/log/slurmctld.out" 2>&1
for i in $(seq $NODES); do
  bash "$(dirname "$0")/node.sh" "$ROOT" "$i"
done

for _ in $(seq 60); do
  [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | wc -l)" = $NODES ] && { echo "$ROOT/env.sh"; exit 0; }
  sleep 0.5
done
sinfo -N -l >&2 || true
tail -n 20 "$ROOT"/log/* >&2
exit 1
