#!/usr/bin/env bash
# Lint, types and tests from a bare checkout: makes .venv if it is not there, and needs nothing outside the checkout.
#   ./tests/run.sh              all but the tests that are marked slow: under ten minutes on two cores
#   ./tests/run.sh tests        everything, as CI does
#   ./tests/run.sh -k student   what pytest is given instead
# Files of tests are divided among processes, a core each: threads of several processes would wait for each other.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- -m "not slow"
source examples/setup.sh
setup_venv test,quickstart,tensorboard

ruff check .
ruff format --check .
mypy
OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
