# Sourced by quickstart.sh and tests/run.sh: one way to make .venv and install nettailor into it.

# setup_venv EXTRAS: .venv in the checkout, with the exact versions of constraints.txt; made once, completed when needed.
setup_venv() {
  local python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "nettailor needs Python 3.11 or newer; this is $("$python" --version). Name another one: PYTHON=python3.12 $0" >&2
    return 2
  }
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  export PATH="$PWD/.venv/bin:$PATH" VIRTUAL_ENV="$PWD/.venv"
  # torch first and alone: where its CPU build is at hand, torchvision then asks for nothing more
  python -c 'import torch' 2>/dev/null || pip install --quiet --constraint constraints.txt torch
  pip install --quiet --constraint constraints.txt --editable ".[$1]"
}
