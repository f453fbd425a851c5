#!/usr/bin/env bash
# usage: requirements/client.sh NAME    The environment .venv-clients-NAME, from requirements/clients/NAME.lock. `make test-clients` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-clients-$1 lock=requirements/clients/$1.lock

printf 'test-clients: environment %s\n' "$venv"
rm -rf "$venv"
.venv/bin/python -m venv "$venv"
# As in install.sh: uv is several times as fast; where only pip knows the way to the packages, pip does it.
.venv/bin/uv pip install --quiet --python "$venv/bin/python" --no-deps --require-hashes -r "$lock" 2>/dev/null \
  || "$venv/bin/python" -m pip install --quiet --no-deps --require-hashes -r "$lock"
touch "$venv/.ratchet-setup"
