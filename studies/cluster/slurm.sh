#!/bin/bash
# Which trade-offs does a model offer, found with the GPUs that a Slurm cluster gives for a while?
#
# One Ray for the length of the allocation, one worker a GPU. When time is up, or the job is preempted, the study is
# as it was after its last event; submitted again, this script goes on with it.
#
#   sbatch studies/cluster/slurm.sh study.yaml
#   hpo status study --watch        # from the login node, with the same HPO_STORAGE; stop and cancel work there too
#
#SBATCH --job-name=hpo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
# Two minutes before the end this script is told, and tells the workers (below).
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --exclusive
set -euo pipefail

STUDY=${1:?name the study file: sbatch slurm.sh study.yaml}

# Where studies are kept: PostgreSQL that the compute nodes reach. SQLite is refused on a network file system, where
# its locks do not hold. The password comes from a file that only you can read, not from this script, whose text
# Slurm shows to all.
export HPO_STORAGE=${HPO_STORAGE:-$(cat "$HOME/.config/hpo/storage")}

# Where nodes share what they have built (factors, healed weights), on the parallel file system; by content, checked.
export HPO_SHARED=${HPO_SHARED:-$SCRATCH/hpo}

# Each node's own cache and journal, on its local disk. $TMPDIR is emptied after the job: what the study needs
# of it is in HPO_SHARED and in the store by then.
export HPO_CACHE=${HPO_CACHE:-${TMPDIR:-/tmp}/hpo}

# Models of the hub, fetched on the login node beforehand (compute nodes often have no way out).
export HF_HOME=${HF_HOME:-$SCRATCH/huggingface}
export HF_HUB_OFFLINE=1

# Other users are on the same nodes and network: without the token nobody gets in. It is made for this job, and
# kept where only you can read; srun hands both variables to all nodes.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$HOME/.config/hpo/ray-token-$SLURM_JOB_ID
mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
(umask 077 && python -c 'import secrets; print(secrets.token_urlsafe(32), end="")' > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
export RAY_USAGE_STATS_ENABLED=0

# The first node of the allocation is the head. The port is the job's own, so that two jobs on a node get along.
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))

# Starts Ray on all nodes, runs the command on the head node alone, and ends Ray with it. The study's `run.workers`
# is the most workers: here, all GPUs of the allocation.
srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  ray symmetric-run \
  --address "$HEAD:$PORT" \
  --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" \
  --num-gpus "$SLURM_GPUS_ON_NODE" \
  --disable-usage-stats \
  -- \
  hpo launch "$STUDY" --resume --ray-address auto --workers $((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE)) &
RUN=$!

# Ray takes its workers with it the moment it ends itself. So they are told to go while it still runs: healings write
# a checkpoint, and trials go back to the queue without having used up an attempt.
tell_workers() {
  srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    pkill -TERM -u "$USER" -f '^ray::Worker' || true
}
trap tell_workers USR1

# The first `wait` ends with the signal, the second with the study or the allocation.
wait "$RUN" || wait "$RUN"
