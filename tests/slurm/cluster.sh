#!/usr/bin/env bash
# A real Slurm on one machine for the tests: two nodes that are two slurmd processes, four pretended GPUs each, no accounting
# (so no sacct), no cgroups, everything below one folder.
#
#   cluster.sh up FOLDER PORT   starts munged, slurmctld (at PORT) and the nodes (at the next two ports);
#                               then SLURM_CONF=FOLDER/slurm.conf reaches them
#   cluster.sh down FOLDER      cancels what runs and ends them, by their pid files
#
# Needs root and the packages slurmctld, slurmd, slurm-client and munge. Partitions: main (its jobs can be preempted and are then
# requeued), high (preempts main), short (at most two minutes).
set -euo pipefail
action=$1 home=$2 first_port=${3:-26817}
nodes=2 cpus=16 gpus=4
host=$(hostname -s)

running() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

finish() { # PID_FILE: asks, waits up to ten seconds, then insists
  running "$1" || return 0
  local pid
  pid=$(cat "$1")
  kill "$pid"
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid"
}

down() {
  if running "$home/slurmctld.pid"; then
    SLURM_CONF=$home/slurm.conf timeout 10 scancel --full --signal=KILL --state=RUNNING || true
    SLURM_CONF=$home/slurm.conf timeout 10 scancel --user="$(id -un)" || true
    sleep 1
  fi
  for file in "$home"/slurmd.n*.pid "$home/slurmctld.pid" "$home/munged.pid"; do
    [ -e "$file" ] && finish "$file"
  done
  return 0
}

up() {
  mkdir -p "$home"/{state,log,dev}
  chmod 755 "$home"
  for n in $(seq $nodes); do mkdir -p "$home/spool.n$n"; done
  (umask 077 && head -c 128 /dev/urandom >"$home/munge.key")
  munged --force --num-threads=2 --key-file="$home/munge.key" --pid-file="$home/munged.pid" --socket="$home/munge.sock" \
    --log-file="$home/log/munged.log" --seed-file="$home/munge.seed" >>"$home/log/start.log" 2>&1 </dev/null
  for i in $(seq 0 $((gpus - 1))); do # what stands for a GPU only has to be a device file
    mknod "$home/dev/nvidia$i" c 1 3 2>/dev/null || : >"$home/dev/nvidia$i"
  done
  echo "NodeName=n[1-$nodes] Name=gpu File=$home/dev/nvidia[0-$((gpus - 1))]" >"$home/gres.conf"
  cat >"$home/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$first_port
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits for its credential to expire: 5 s here, two minutes by default
AuthInfo=socket=$home/munge.sock,cred_expire=5
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool.%n
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.%n.pid
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdLogFile=$home/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=50
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_min_interval=0,sched_interval=2,bf_interval=2,batch_sched_delay=0,default_queue_depth=1000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
CompleteWait=0
MinJobAge=600
NodeName=DEFAULT CPUs=$cpus Boards=1 SocketsPerBoard=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=4000 Gres=gpu:$gpus
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((first_port + 1))-$((first_port + nodes))] State=UNKNOWN
PartitionName=DEFAULT Nodes=ALL DefaultTime=10 MaxTime=1-00:00:00 State=UP
PartitionName=main Default=YES PriorityTier=10 PreemptMode=REQUEUE GraceTime=15
PartitionName=high PriorityTier=100 PreemptMode=OFF
PartitionName=short PriorityTier=10 MaxTime=2 PreemptMode=OFF
CONF
  export SLURM_CONF=$home/slurm.conf
  slurmctld -i >>"$home/log/start.log" 2>&1 </dev/null
  for n in $(seq $nodes); do slurmd -N "n$n" >>"$home/log/start.log" 2>&1 </dev/null; done
  for _ in $(seq 600); do
    ready=$(timeout 5 sinfo -h -N -p main -t idle -o %N 2>/dev/null | sort -u | wc -l) || ready=0
    [ "$ready" = "$nodes" ] && return 0
    sleep 0.2
  done
  echo "Slurm did not come up within two minutes:" >&2
  tail -n 5 "$home"/log/*.log >&2
  return 1
}

export PATH=$PATH:/usr/sbin:/sbin
"$action"
