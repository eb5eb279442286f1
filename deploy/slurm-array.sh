#!/bin/bash
# Five seeds of a variant, a GPU each, in the checkout:
#   sbatch deploy/slurm-array.sh --variant bird --task dmc_cartpole_swingup
# SIGTERM comes when a job is preempted, and here also two minutes before its time is over: the run
# saves and ends with status 143, and the job is queued again, to go on from there.
#SBATCH --job-name=dreamer-bird
#SBATCH --array=0-4
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.log

# Slurm signals the programs that srun starts, not this script, whose cores newer ones do not get
# unless told.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" .venv/bin/python run.py "$@" --seed "$SLURM_ARRAY_TASK_ID"
status=$?
if [ "$status" = 143 ]; then
    scontrol requeue "$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID"
fi
exit "$status"
