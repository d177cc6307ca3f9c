# Sourced by quickstart.sh and tests/run.sh: one way to make .venv and install nettailor into it.

# setup_venv EXTRAS: .venv in the checkout with the versions of constraints.txt. Installs again only when pyproject.toml
# or constraints.txt is newer than what was installed.
setup_venv() {
  local python=${PYTHON:-} stamp=".venv/installed-$1" candidate
  for candidate in ${python:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$candidate
      break
    fi
    python=
  done
  if [ -z "$python" ]; then
    echo "nettailor needs Python 3.11 or newer with its venv module (Debian: apt install python3-venv)." >&2
    echo "Name one: PYTHON=/path/to/python3.12 $0" >&2
    return 2
  fi
  .venv/bin/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv && "$python" -m venv .venv; }
  export PATH="$PWD/.venv/bin:$PATH" VIRTUAL_ENV="$PWD/.venv"
  if [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt constraints.txt ]; then return 0; fi
  # torch by itself first: pip then takes a CPU build that is at hand, and torchvision finds its torch installed
  python -c 'import torch' 2>/dev/null || python -m pip install --quiet --constraint constraints.txt torch
  python -m pip install --quiet --constraint constraints.txt --editable ".[$1]"
  touch "$stamp"
}
