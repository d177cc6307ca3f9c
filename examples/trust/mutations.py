"""Files that are damaged, or forged, in every way that we could think of: each is refused, or read as it was written.

    python examples/trust/mutations.py --rounds 10000        # in one process, some ms each
    python examples/trust/mutations.py --cli 100             # each a command of its own, some seconds each
    python examples/trust/mutations.py --rounds 1 --first 4711 --seed 1    # one round again

A round takes a file of some kind (specimens.py), changes it (mutating.py) and has it read. Right is: refused with one
of our errors (on the command line, see commands.py: one message and exit 2); or read with the content that was there
before; where the digests were computed again, or there are none, read as what it says now. Nothing else is: another
error, other content, memory beyond twice the file and a fixed sum, many seconds, code that was run. Prints a table and
exits 1 if anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutating
import torch
from specimens import Specimen, make_backbone, specimens

from nettailor_cli.core.errors import DataError, FileError, UsageError

FAITHFUL, FORGED, REFUSED = "faithful", "forged", "refused"
"""What a mutation asks for: refused or the same content; refused or any content; refused."""

OUTCOMES = ("refused", "same content", "as forged", "FAILED")
SECONDS = 20  # for a round; most take milliseconds
SPARE = 64 * 2**20  # bytes beside twice the file
ADDRESSES = 12 * 2**30  # of the child, torch's own included: what is claimed and never touched counts here

Change = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Way:
    """A mutation of one kind of file, and what has to come of it."""

    name: str
    change: Change
    wanted: str = FAITHFUL


@dataclass(frozen=True)
class Round:
    """What came of one round; `reason` is empty unless it failed."""

    number: int
    kind: str
    way: str
    outcome: str
    reason: str = ""


class TooSlow(BaseException):
    """Raised by the alarm; no handler of errors takes it."""


def ways_of(specimen: Specimen, marker: Path) -> list[Way]:
    """The mutations for this kind; `marker` is the file that code in a pickle would make."""
    any_file = FAITHFUL if specimen.faithful else FORGED
    ways = [Way(name, change, any_file) for name, change in mutating.ANY.items()]
    match specimen.kind:
        case "manifest":
            ways.append(Way("lying, resealed", mutating.lie_in_json, FORGED))
        case "run.toml" | "latency table":
            ways.append(Way("lying line", mutating.lie_in_lines, FORGED))
        case "backbone .pth":
            ways += [Way(name, change, FORGED) for name, change in mutating.PTH.items()]
            ways.append(Way("code", lambda data, rng: mutating.code(data, rng, str(marker)), REFUSED))
            ways.append(Way("odd tensors", odd_tensors, REFUSED))
        case "backbone .pth, old":
            ways.append(Way("code", lambda data, rng: mutating.code(_ZIPPED, rng, str(marker)), REFUSED))
    if specimen.sealed or specimen.kind == "backbone .safetensors":
        ways += [Way(name, change) for name, change in mutating.SAFETENSORS.items()]
        for name in mutating.PARTS:
            ways.append(Way(name, _part(name, resealed=False), REFUSED if name == "NaN or infinity" else FAITHFUL))
            if specimen.sealed:
                wanted = REFUSED if name == "NaN or infinity" else FORGED
                ways.append(Way(f"{name}, resealed", _part(name, resealed=True), wanted))
    return ways


def _part(name: str, *, resealed: bool) -> Change:
    return lambda data, rng: mutating.change(name, data, rng, resealed=resealed)


def _saved(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


_ZIPPED = _saved({"a": torch.ones(3)})


def odd_tensors(data: bytes, rng: random.Random) -> bytes:
    """A state dict in which one tensor is of a kind that no network has."""
    state = torch.load(io.BytesIO(data), weights_only=True)
    name = rng.choice(sorted(state))
    tensor = state[name].float()
    odd = (
        tensor.to_sparse, lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda: tensor.to(torch.complex64),
        lambda: tensor.to("meta"), lambda: torch.ones(1).expand(2**40), lambda: torch.ones(1).expand(tensor.shape),
        lambda: tensor * torch.nan, lambda: tensor / 0, lambda: tensor.int(), lambda: [tensor], lambda: None,
        lambda: {"a": tensor}, lambda: tensor[..., None],
    )  # fmt: skip
    return _saved({**state, name: rng.choice(odd)()})


# in one process


def rounds(numbers: Iterator[int] | range, seed: int, *, measured: bool = True) -> Iterator[Round]:
    """Carry these rounds out; the same seed and number are the same round. `measured`: see to time and memory, too."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kinds = specimens(folder, make_backbone())
        marker = folder / "code was run"
        good = {specimen.kind: specimen.read(_put(folder / "good", specimen, specimen.data)) for specimen in kinds}
        ways = {specimen.kind: ways_of(specimen, marker) for specimen in kinds}
        for number in numbers:
            rng = random.Random(f"{seed}/{number}")
            specimen = kinds[number % len(kinds)]
            way = rng.choice(ways[specimen.kind])
            data = way.change(specimen.data, rng)
            path = _put(folder / "mutated", specimen, data)
            outcome, reason = _outcome(specimen, way, path, good[specimen.kind], len(data), measured=measured)
            if marker.exists():
                outcome, reason = "FAILED", "code from the file was run"
            yield Round(number, specimen.kind, way.name, outcome, reason)


def _put(folder: Path, specimen: Specimen, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / specimen.file
    path.write_bytes(data)
    return path


def _outcome(specimen: Specimen, way: Way, path: Path, good: str, size: int, *, measured: bool) -> tuple[str, str]:
    before = _fresh_peak() if measured else 0
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        read = specimen.read(path)
    except (FileError, UsageError, DataError) as error:
        if not error.message or not error.message.isprintable():
            return "FAILED", f"not one harmless message: {error.message!r}"
        outcome = "refused"
    except TooSlow:
        return "FAILED", f"took more than {SECONDS} s"
    except Exception as error:  # noqa: BLE001 - what is looked for
        return "FAILED", f"{type(error).__name__}: {str(error)[:200]}"
    else:
        outcome = "same content" if read == good else "as forged"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    taken = _peak() - before if measured else 0
    if taken > 2 * size + SPARE:
        return "FAILED", f"took {taken / 2**20:.0f} MB for a file of {size / 2**20:.1f} MB"
    if outcome != "refused" and way.wanted == REFUSED:
        return "FAILED", "was read"
    if outcome == "as forged" and way.wanted == FAITHFUL:
        return "FAILED", "was read with another content"
    return outcome, ""


def _alarm(*_: Any) -> None:
    raise TooSlow


def _fresh_peak() -> int:
    """Begins to measure the peak memory anew; what is taken now, in bytes. (Linux; elsewhere the peak so far.)"""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS") or _peak()


def _peak() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def child(first: int, count: int, seed: int) -> None:
    """The rounds, in a process whose memory is limited: one line of JSON each, before that the number."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def numbers() -> Iterator[int]:
        for number in range(first, first + count):
            print(number, flush=True)  # if this process dies, it was in this round
            yield number

    for result in rounds(numbers(), seed):
        print(json.dumps(vars(result)), flush=True)


def in_children(first: int, count: int, seed: int) -> Iterator[Round]:
    """The rounds first..first+count-1; a child that dies has failed in its round, and the next goes on after it."""
    last = first + count
    while first < last:
        command = [sys.executable, __file__, "--child", "--first", first, "--rounds", last - first, "--seed", seed]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            begun = first - 1
            for line in process.stdout:
                if line.startswith("{"):
                    yield Round(**json.loads(line))
                else:
                    begun = int(line)
        if process.returncode == 0:
            return
        if begun < first:
            sys.exit("the process that mutates ended before its first round")
        yield Round(begun, "?", "?", "FAILED", f"the process died: {process.returncode}")
        first = begun + 1


def show(results: list[Round]) -> int:
    """Print the table and what failed; 1 if anything did."""
    counts = Counter((result.kind, result.way, result.outcome) for result in results)
    print(f"\n{'kind':24}{'mutation':28}" + "".join(f"{outcome:>14}" for outcome in OUTCOMES))
    for kind, way in sorted({(result.kind, result.way) for result in results}):
        print(f"{kind:24}{way:28}" + "".join(f"{counts[kind, way, outcome]:>14}" for outcome in OUTCOMES))
    sums = Counter(result.outcome for result in results)
    print(f"{'all':24}{len(results):<28}" + "".join(f"{sums[outcome]:>14}" for outcome in OUTCOMES))
    failed = [result for result in results if result.outcome == "FAILED"]
    for result in failed:
        print(f"round {result.number}: {result.kind}, {result.way}: {result.reason}")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=0, help="so many in process")
    parser.add_argument("--cli", type=int, default=0, help="so many through the command line")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.first, asked.rounds, asked.seed)
        return 0
    code = 0
    for count, run in ((asked.rounds, in_children), (asked.cli, through_commands)):
        if count:
            started = time.perf_counter()
            results = []
            for result in run(asked.first, count, asked.seed):
                results.append(result)
                if run is through_commands or result.outcome == "FAILED":
                    print(*vars(result).values(), sep=", ", file=sys.stderr, flush=True)
            code |= show(results)
            print(f"{count} rounds, seed {asked.seed}, {time.perf_counter() - started:.0f} s")
    return code


def through_commands(first: int, count: int, seed: int) -> Iterator[Round]:
    from commands import through_commands

    return through_commands(first, count, seed)


if __name__ == "__main__":
    sys.exit(main())
