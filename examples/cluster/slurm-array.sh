#!/bin/bash
# One manifest over the tasks of a Slurm array, all into one shared folder:
#
#   sbatch --array=1-16 slurm-array.sh /shared/manifest.csv /shared/out [more options]
#
# The array must begin at 1. Submitting it again goes on with what is left; --retry-failed tries
# failed rows again. When the time is nearly up, Slurm sends SIGTERM: rows that are being rendered
# are given back and nothing of the others is lost.
#SBATCH --job-name=joyflash
#SBATCH --array=1-16
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

manifest=${1:?give the manifest}
out_dir=${2:?give the shared output folder}
shift 2

# exec, so that Slurm's signal reaches joyflash and not a shell that waits for it.
exec joyflash batch "$manifest" --out-dir "$out_dir" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --workers 1 "$@"
