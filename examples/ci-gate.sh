#!/usr/bin/env bash
# A gate for a team's CI: is this model still good enough, and still small enough?
#
#   MIN_ACCURACY=90 MAX_MACS=60% MAX_PARAMS=8M MIN_CLASS_ACCURACY=70 ./examples/ci-gate.sh MODEL DATA [REPORTS]
#
# Each gate is optional. Budgets are written 900M, 0.9G, or 40% (of the backbone with this task's classifier).
# REPORTS (default: reports) gets inspect.json, evaluate.json and confusion.csv, to be kept with the build.
#
# All gates are looked at before the script ends, so that one run tells everything. Exit codes, as nettailor's own:
# 0 all gates met, 3 some gate missed, 2 wrong usage, data or file (or no jq), 1 unexpected.
set -uo pipefail

if ! command -v jq >/dev/null; then
  echo "ci-gate.sh needs jq, which reads the JSON reports (Debian: apt install jq; macOS: brew install jq)." >&2
  exit 2
fi
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  echo "usage: $0 MODEL DATA [REPORTS]" >&2
  echo "gates: MIN_ACCURACY, MIN_CLASS_ACCURACY (percent), MAX_MACS, MAX_PARAMS (budgets) in the environment" >&2
  exit 2
fi
least=${MIN_CLASS_ACCURACY:-0}
if ! jq -en --argjson least "$least" '$least | numbers' >/dev/null 2>&1; then
  echo "MIN_CLASS_ACCURACY $least is not a number" >&2
  exit 2
fi
model=$1 data=$2 reports=${3:-reports}
mkdir -p "$reports" || exit 2
missed=0

# gated REPORT COMMAND...: run it with its JSON in REPORT; a missed gate is remembered, anything else that is wrong ends
gated() {
  local report=$1 code
  shift
  "$@" >"$report" && return
  code=$?
  if [ "$code" -ne 3 ]; then exit "$code"; fi
  missed=1
}

gated "$reports/inspect.json" nettailor inspect "$model" --json \
  ${MAX_MACS:+--max-macs "$MAX_MACS"} ${MAX_PARAMS:+--max-params "$MAX_PARAMS"}
gated "$reports/evaluate.json" nettailor evaluate "$model" --data "$data" --json --quiet \
  --confusion "$reports/confusion.csv" ${MIN_ACCURACY:+--min-accuracy "$MIN_ACCURACY"}

jq -r '"\(.stage): \(100 - .removed.macs | round) % of the MACs, \(100 - .removed.parameters | round) % of the parameters"
  + " of \(.backbone.name)"' "$reports/inspect.json" || exit 1
jq -r '"accuracy \(.accuracy * 100 | round / 100) % on \(.split), \(.images) images"' "$reports/evaluate.json" || exit 1

# What has no flag is a line of jq: here, a gate on the worst class. Classes without images have no accuracy (null).
weak=$(jq -r --argjson least "$least" '.per_class[] | select(.accuracy != null and .accuracy < $least)
  | "class \(.class | @json): \(.right) of \(.images) images right"' "$reports/evaluate.json") || exit 1
if [ -n "$weak" ]; then
  printf 'below MIN_CLASS_ACCURACY %s:\n%s\n' "$least" "$weak" >&2
  missed=1
fi

if [ "$missed" -ne 0 ]; then
  echo "gate missed" >&2
  exit 3
fi
echo "all gates met"
