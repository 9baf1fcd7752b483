#!/bin/bash
# Within an allocation: starts a rank a GPU. CONFIG, then more arguments of mtnlg train. MTNLG names the program (mtnlg), RUN_DIR the run's directory on a disk
# that all nodes share. Started again after a preemption, the run goes on from the newest checkpoint there.
set -euo pipefail
config=${1:?the configuration is missing: ranks.sh CONFIG [arguments of mtnlg train]}
shift
run_dir=${RUN_DIR:-runs/$(basename "$config" .toml)}

# Where rank 0 waits for the others: the first node; a port that two jobs of one node do not share.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

# A collective that fails ends the job instead of hanging in the driver; what NCCL has to say goes to the output.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
# Data move between GPU and network card without the host wherever both hang on one PCIe switch (PXB); farther would be slower than through the host.
export NCCL_NET_GDR_LEVEL=${NCCL_NET_GDR_LEVEL:-PXB}
# Kernels are compiled once and shared by all ranks of a node; a home directory on a network disk would be read by thousands of them.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-/tmp/mtnlg-$USER}
# The collectives' stream may overtake the compute stream in the driver only if each has a hardware queue of its own.
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-8}

begin=(--config "$config" --run-dir "$run_dir")
if compgen -G "$run_dir/checkpoints/step-*/manifest.json" >/dev/null; then
    begin=(--resume "$run_dir")
fi

# --cpu-bind=cores, --distribution=block: ranks of a node are neighbours, so that the tensor group is a node; each has its own cores.
# --kill-on-bad-exit: a rank that ends with an error takes the others with it, which would wait for it until their timeout.
exec srun --cpu-bind=cores --distribution=block:block --kill-on-bad-exit=1 --gpu-bind=none \
    "${MTNLG:-mtnlg}" train "${begin[@]}" --backend cuda "$@"
