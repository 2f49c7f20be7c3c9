#!/bin/bash
# For clusters without SLURM. On each machine, from the project's folder, with its own NODE_RANK:
# MASTER_ADDR=first-machine NODE_RANK=0 bash launch/torchrun.sh [train.py options]
{%- set devices = cookiecutter.devices | string %}
{%- set count = (devices.split(",") | length) if devices.startswith("[") else ("gpu" if cookiecutter.accelerator == "gpu" else 1) if devices == "auto" else devices | int %}
set -eu
exec torchrun \
    --nnodes="${NNODES:-{{ cookiecutter.num_nodes }}}" \
    --nproc-per-node="${NPROC_PER_NODE:-{{ count }}}" \
    --node-rank="${NODE_RANK:?the number of this machine, from 0}" \
    --master-addr="${MASTER_ADDR:?the name of machine 0}" \
    --master-port="${MASTER_PORT:-29500}" \
    train.py fit "$@"
