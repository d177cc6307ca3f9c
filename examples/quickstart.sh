#!/usr/bin/env bash
# The main job on real images, from a bare checkout: makes .venv, installs, and tailors to handwritten digits.
#
#   ./examples/quickstart.sh                          the backbone that comes with the package
#   ./examples/quickstart.sh resnet18-f37072fd.pth    or a ResNet-18's weights that you have: .pth or .safetensors
#
# The pictures are scikit-learn's handwritten digits, which come with its package. Everything lands in runs/quickstart.
set -euo pipefail
weights=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
source examples/setup.sh
setup_venv quickstart

run=runs/quickstart
data=$run/digits
[ -d "$data" ] || python examples/digits.py "$data"

set -x
nettailor teach ${weights:+--backbone resnet18 --weights "$weights"} --data "$data" --run "$run" \
  --size 32 --no-flip --preset quick --force
nettailor tailor --run "$run" --preset quick --force
nettailor prune "$run/student.safetensors" --force
nettailor finetune "$run/pruned.safetensors" --preset quick --force
nettailor inspect "$run/model.safetensors"
nettailor evaluate "$run/model.safetensors" --data "$data" --top-k 3
nettailor predict "$run/model.safetensors" "$data/test/7" --format csv | head -n 5
