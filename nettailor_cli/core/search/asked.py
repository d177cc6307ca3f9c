"""What was asked of `fit`, and what of it the run remembers: the table [fit] of run.toml. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nettailor_cli.core.budgets import BYTES, COUNT, SECONDS, Budget, parse_budget
from nettailor_cli.core.errors import UsageError, did_you_mean
from nettailor_cli.core.pruning import PROXY_THRESHOLD

TOLERANCE = 0.5
"""Points of val accuracy below the teacher's, where neither a tolerance nor a budget was asked for."""

GRADUAL, SWEEP = "gradual", "sweep"
SEARCHES = (GRADUAL, SWEEP)
LOSS = "loss"
RANKINGS = ("alpha", "alpha-cost", LOSS, "loss-cost")
"""See search.ranking."""

TEACHER, STUDENT = "teacher", "student"
AIMS = (TEACHER, STUDENT)
"""Whose accuracy the tolerance is taken from: the teacher's, or the unpruned student's where that is better."""

_BUDGETS = {"max_macs": COUNT, "max_params": COUNT, "max_bytes": BYTES, "max_latency": SECONDS}
_LASTING = ("folds", "search", "ranking", "proxy_threshold")
"""What candidates depend on: the same for all of a run."""


@dataclass(frozen=True)
class Plan:
    """How to search.

    search: GRADUAL, or SWEEP, the published way: for every number of blocks those with the lowest scores go at once
    and a full training follows. ranking: see search.ranking. proxy_threshold: proxies with a smaller alpha go.
    """

    search: str = GRADUAL
    ranking: str = LOSS
    proxy_threshold: float = PROXY_THRESHOLD


@dataclass(frozen=True)
class Asked:
    """What was typed, settings and places aside; None: not.

    tolerance: points of val accuracy that may be missing. aim: to whose, see `AIMS`. max_...: budgets as they are
    written, see core.budgets. folds: of cross-validation. search, ranking, proxy_threshold: see
    Plan. preset, config, flags: as in a Job.
    Raises UsageError for words and figures that make no sense.
    """

    tolerance: float | None = None
    aim: str | None = None
    max_macs: str | None = None
    max_params: str | None = None
    max_bytes: str | None = None
    max_latency: str | None = None
    folds: int | None = None
    search: str | None = None
    ranking: str | None = None
    proxy_threshold: float | None = None
    preset: str | None = None
    config: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for flag, word, known in (
            ("--search", self.search, SEARCHES),
            ("--ranking", self.ranking, RANKINGS),
            ("--aim", self.aim, AIMS),
        ):
            if word is not None and word not in known:
                raise UsageError(f"{flag} {word} is unknown", did_you_mean(word, known) or "choose " + ", ".join(known))
        for name in _BUDGETS:
            self.budget(name)

    def check_aim(self) -> None:
        """Raises UsageError for an aim without a tolerance: for an `Asked` to which nothing is added any more."""
        if self.aim is not None and self.accuracy_matters is None:
            raise UsageError("--aim has no effect: with a budget any accuracy will do", "say --tolerance, too")

    def budget(self, name: str) -> Budget | None:
        """The budget `name` ("max_macs", ...), if there is one."""
        text = getattr(self, name)
        return None if text is None else parse_budget(text, _BUDGETS[name], "--" + name.replace("_", "-"))

    @property
    def accuracy_matters(self) -> float | None:
        """The tolerance: what was asked for, or the default where there is no budget either."""
        if self.tolerance is None and not any(self.budget(name) for name in _BUDGETS):
            return TOLERANCE
        return self.tolerance

    @property
    def aims_at(self) -> str:
        """The aim: what was asked for, or the default."""
        return self.aim or TEACHER

    @property
    def plan(self) -> Plan:
        """What was typed of it, and its defaults for the rest."""
        words = {field.name: getattr(self, field.name) for field in fields(Plan)}
        return Plan(**{name: value for name, value in words.items() if value is not None})

    def to_toml(self) -> dict[str, Any]:
        """For run.toml: the whole plan, so that what was left out is not taken for anything else later."""
        return {**vars(self), **vars(self.plan), "flags": dict(self.flags)}


def remembered(asked: Asked, table: Mapping[str, Any]) -> Asked:
    """`asked` with what was not typed from the run's [fit] `table`: what --resume goes on with.

    Raises UsageError when what its candidates depend on was typed differently.
    """
    known = {name: value for name, value in table.items() if name in vars(asked)}
    for name in _LASTING:
        typed = getattr(asked, name)
        if typed is not None and name in known and typed != known[name]:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"the fit was started with {flag} {known[name]}", "give the same, or start again: --force")
    typed = {name: value for name, value in vars(asked).items() if value is not None and name != "flags"}
    flags = {**known.get("flags", {}), **asked.flags}
    config = _path(typed.get("config", known.get("config")))
    both = replace(Asked(**{**known, **typed, "flags": flags}), config=config)
    # a budget that was added may have made an aim idle that nobody has typed now
    return replace(both, aim=None) if asked.aim is None and both.accuracy_matters is None else both


def _path(text: str | None) -> str | None:
    return None if text is None else str(Path(text))
