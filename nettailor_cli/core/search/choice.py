"""Candidates as rows of a table, what was wanted of them, and which one it is. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nettailor_cli.core.search.asked import STUDENT, TEACHER

CANDIDATE, BASELINE = "candidate", "baseline"
ROUNDING = 5e-7
"""Points of accuracy: half a millionth is rounding, not a picture."""
BY_MORE = " by a standard error or more"
NOT_CHANCE = 2.0
"""Standard errors: a larger difference is worth a word."""


def standard_error(accuracy: float, images: int) -> float:
    """In points: that of `accuracy` (percent) as a share of `images` independent pictures; NaN where there are none."""
    share = accuracy / 100
    return 100 * math.sqrt(share * (1 - share) / images) if images else math.nan


@dataclass(frozen=True)
class Row:
    """One network of the search.

    name: of its file. kind: CANDIDATE, or BASELINE, which is shown and never chosen. blocks: universal blocks kept.
    accuracy: top-1 on val, percent, of `images` pictures. macs, parameters: of the whole network. bytes: its file and
    the universal blocks that it uses, in fp32. epochs: of training behind it in all, this one's given-up half included.
    latency: the sum of its parts' in microseconds, where the student was tailored for latency.
    """

    name: str
    kind: str
    blocks: tuple[int, ...]
    accuracy: float
    images: int
    macs: int
    parameters: int
    bytes: int
    epochs: float
    given_up: bool = False
    latency: float | None = None

    @property
    def standard_error(self) -> float:
        """Of the accuracy, in points."""
        return standard_error(self.accuracy, self.images)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "blocks": list(self.blocks), "standard_error": self.standard_error}


@dataclass(frozen=True)
class Wanted:
    """What the network has to be: accurate to within the tolerance, or as accurate as a budget allows.

    accuracy: the least that is within the tolerance of the teacher, percent on val; None where only budgets were given.
    tolerance: how far below the teacher's that is, in points. margin: points more that are aimed at, as the leanest of
    several that are within the tolerance may be there by luck. student: the unpruned one's accuracy, percent on val: if
    `aims_at` is STUDENT, it is aimed at where it is better. macs, parameters, bytes, latency (microseconds): at most so
    much; None is any.
    """

    accuracy: float | None
    macs: float | None = None
    parameters: float | None = None
    bytes: float | None = None
    latency: float | None = None
    tolerance: float | None = None
    margin: float = 0.0
    student: float | None = None
    aims_at: str = TEACHER

    @property
    def aim(self) -> float | None:
        """The least that is within the teacher's tolerance by the margin, and within the student's; percent.

        The student counts if it is aimed at, see `aims_at`.
        """
        if self.accuracy is None:
            return None
        least = self.accuracy + self.margin
        if self.student is None or self.aims_at != STUDENT:
            return least
        return max(least, self.student - (self.tolerance or 0.0))

    @property
    def has_budget(self) -> bool:
        return any(limit is not None for limit in (self.macs, self.parameters, self.bytes, self.latency))

    def within_reach(self, best: Row) -> float:
        """The aim, where the most accurate row `best` comes up to it; else the least within the tolerance of `best`.

        In percent. If `best` is within the teacher's tolerance, so is that.
        """
        if self.aim is not None and best.accuracy >= self.aim - ROUNDING:
            return self.aim
        least = best.accuracy - (self.tolerance or 0.0)
        return max(least, self.accuracy) if self.accuracy is not None and self.accepts(best) else least

    def affords(self, row: Row) -> bool:
        """Whether `row` is inside every budget."""
        return self.excess(row) <= 1.0

    def excess(self, row: Row) -> float:
        """The largest cost over budget ratio; 0 without budgets."""
        pairs: list[tuple[float | None, float | None]] = [
            (row.macs, self.macs),
            (row.parameters, self.parameters),
            (row.bytes, self.bytes),
            (row.latency, self.latency),
        ]
        given = [(cost, limit) for cost, limit in pairs if cost is not None and limit is not None]
        return max((cost / limit if limit > 0 else math.inf for cost, limit in given), default=0.0)

    def accepts(self, row: Row) -> bool:
        """Whether `row` is within the tolerance of the teacher."""
        return self.accuracy is None or row.accuracy >= self.accuracy - ROUNDING


@dataclass(frozen=True)
class Choice:
    """`row` is what was chosen; `met` whether it is all that was wanted; `reason` says why it, in one sentence."""

    row: Row
    met: bool
    reason: str


def most_accurate(rows: Iterable[Row]) -> Row:
    """Of the candidates that were not given up, of which there is one; of equal ones the leanest."""
    found = [row for row in rows if row.kind == CANDIDATE and not row.given_up]
    return max(found, key=lambda row: (row.accuracy, -row.macs))


def choose(rows: Sequence[Row], wanted: Wanted) -> Choice:
    """The leanest candidate within the tolerance and the budgets; without a tolerance, the most accurate inside them.

    Within the tolerance is what comes up to the aim. When no candidate does: the leanest within the tolerance of the
    most accurate one inside the budgets, which will do if the teacher is aimed at and that is within its tolerance; or
    else the closest to the budgets. What was given up halfway is never chosen. `rows` holds at least one candidate that
    was not.
    """
    candidates = [row for row in rows if row.kind == CANDIDATE and not row.given_up]
    affordable = [row for row in candidates if wanted.affords(row)]
    if not affordable:
        row = min(candidates, key=lambda row: (wanted.excess(row), row.macs))
        return Choice(row, False, f"no candidate is inside the budget; {row.name} comes closest")
    if wanted.aim is not None:
        good = [row for row in affordable if row.accuracy >= wanted.aim - ROUNDING]
        if good:
            row = min(good, key=lambda row: (row.macs, -row.accuracy))
            surely = wanted.margin > 0 and wanted.aims_at == TEACHER
            how = BY_MORE if surely else _noise(row, wanted.aim)
            more = _leaner_by_luck(row, affordable, wanted) if surely else ""
            more += _more_of_the_student(row, wanted)
            return Choice(row, True, f"{row.name} is the leanest within the tolerance{how}{more}")
        best = most_accurate(affordable)
        least = wanted.within_reach(best) - ROUNDING
        row = min((row for row in affordable if row.accuracy >= least), key=lambda row: (row.macs, -row.accuracy))
        of = "" if row is best else f" the leanest within it of {best.name}, which is"
        accepted, where = wanted.accepts(row), " inside the budget" if wanted.has_budget else ""
        met = accepted and wanted.aims_at == TEACHER
        whose = BY_MORE if met else " of the unpruned student" if accepted else ""
        reason = f"no candidate{where} is within the tolerance{whose}; {row.name} is{of} the most accurate"
        return Choice(row, met, reason)
    row = most_accurate(affordable)
    return Choice(row, True, f"{row.name} is the most accurate inside the budget")


def _leaner_by_luck(row: Row, rows: Iterable[Row], wanted: Wanted) -> str:
    """What is to be said when one of `rows` that is leaner than `row` is within the tolerance, too, but by less."""
    leaner = [other for other in rows if other.macs < row.macs and wanted.accepts(other)]
    least = min(leaner, key=lambda other: other.macs, default=None)
    return "" if least is None else f"; {least.name} is leaner and within it by less"


def _more_of_the_student(row: Row, wanted: Wanted) -> str:
    """What is to be said when `row` would not do for the student's aim, and is worse than it by more than chance."""
    other = replace(wanted, aims_at=STUDENT).aim
    if wanted.student is None or other is None or row.accuracy >= other - ROUNDING:
        return ""
    more = wanted.student - row.accuracy
    if more <= NOT_CHANCE * row.standard_error:
        return ""
    return f"; the unpruned student is {more:.1f} points more accurate (--aim {STUDENT})"


def _noise(row: Row, accuracy: float) -> str:
    """What is to be said when the margin is smaller than the accuracy's standard error."""
    margin = row.accuracy - accuracy
    if margin < row.standard_error:
        return f", by {margin:.1f} points: less than the standard error of {row.standard_error:.1f}"
    return ""
