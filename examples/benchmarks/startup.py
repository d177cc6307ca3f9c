"""What commands that do no arithmetic take: CPU seconds of --version, --help of everything, and inspect.

    python examples/benchmarks/startup.py [MODEL]

Medians over --repeats, user and system time of the whole process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess

COMMANDS = (
    *("teach", "tailor", "prune", "finetune", "fit", "inspect", "evaluate", "predict"),
    *("benchmark", "export", "bundle", "backbones"),
)


def cpu_seconds(*words: str) -> float:
    """Of one run of the command, which has to end with 0."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["nettailor", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model file, for inspect")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    commands = [("--version",), ("--help",), *((name, "--help") for name in COMMANDS), ("backbones", "list")]
    if arguments.model:
        commands += [("inspect", arguments.model), ("inspect", arguments.model, "--json")]
    cpu_seconds("--version")  # compiles what is not compiled yet
    found = {
        " ".join(words): statistics.median(cpu_seconds(*words) for _ in range(arguments.repeats)) for words in commands
    }
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, seconds in found.items():
        print(f"{seconds:.2f} s  nettailor {name}")


if __name__ == "__main__":
    main()
