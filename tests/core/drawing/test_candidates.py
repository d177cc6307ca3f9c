from __future__ import annotations

import io
import itertools
import math
import random
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from PIL import Image

from nettailor_cli.core.drawing import candidates
from nettailor_cli.core.drawing.candidates import BASELINE, CANDIDATE, CHOSEN, STUDENT, TEACHER, Row, draw_candidates
from nettailor_cli.core.errors import UsageError

NAMESPACE = "{http://www.w3.org/2000/svg}"


def table(count: int) -> list[Row]:
    rng = random.Random(count)
    rows = [Row("teacher", TEACHER, 100.0, 93.0, 1.4)]
    for k in range(1, count + 1):
        macs = 100 - 80 * k / count + rng.uniform(-3, 3)
        kind = CHOSEN if k == (count + 1) // 2 else CANDIDATE
        rows.append(Row(f"K={k}", kind, macs, 92 - 5 * k / count + rng.uniform(-1, 1), rng.uniform(0.5, 2)))
    rows.append(Row("unpruned student", BASELINE, 109.0, 93.7, 1.3))
    rows.append(Row("whole network, fine-tuned", BASELINE, 100.0, 94.1, 1.2))
    rows.append(Row("classifier alone", BASELINE, 100.0, 84.2, None))
    return rows


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures behind the files, laid out and not saved."""
    figures: list[Figure] = []

    def keep(figure: Figure, form: str) -> bytes:
        figure.draw_without_rendering()
        figures.append(figure)
        return b""

    monkeypatch.setattr(candidates, "saved", keep)
    return figures


def axes_of(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def names_in(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation)]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_every_row_is_a_point_with_its_name(drawn: list[Figure], count: int) -> None:
    rows = table(count)
    draw_candidates(rows, "svg", tolerance=0.5)
    axes = axes_of(drawn[0])
    points = [
        (x, y)
        for line in axes.lines
        if line.get_marker() in ("o", "s", "D", "*")
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]
    assert sorted(points) == sorted((row.macs, row.accuracy) for row in rows)
    assert sorted(name.get_text() for name in names_in(axes)) == sorted(row.name for row in rows)
    for name in names_in(axes):
        (row,) = [row for row in rows if row.name == name.get_text()]
        assert name.xy == (row.macs, row.accuracy)


@pytest.mark.parametrize("count", [1, 3, 10, 40])
def test_names_cover_neither_each_other_nor_points_and_stay_inside(drawn: list[Figure], count: int) -> None:
    rows = table(count)
    draw_candidates(rows, "png", tolerance=0.5)
    axes = axes_of(drawn[0])
    names = names_in(axes)
    assert {"teacher", f"K={(count + 1) // 2}"} <= {name.get_text() for name in names}
    assert len(names) >= 0.9 * len(rows)
    extents = [Text.get_window_extent(name) for name in names]  # the words alone, without the line to the point
    for one, other in itertools.combinations(extents, 2):
        assert not one.overlaps(other)
    points = axes.transData.transform([(row.macs, row.accuracy) for row in rows]).tolist()
    for extent, (x, y) in itertools.product(extents, points):
        assert not (extent.x0 < x < extent.x1 and extent.y0 < y < extent.y1)
    for extent in extents:
        assert axes.bbox.x0 - 1 <= extent.x0 and extent.x1 <= axes.bbox.x1 + 1
        assert axes.bbox.y0 - 1 <= extent.y0 and extent.y1 <= axes.bbox.y1 + 1


def test_the_error_bars_are_the_standard_errors_and_only_where_there_is_one(drawn: list[Figure]) -> None:
    rows = table(3)
    draw_candidates(rows, "svg")
    bars = [
        segment
        for container in axes_of(drawn[0]).containers
        for lines in container[2]  # type: ignore[misc]
        for segment in lines.get_segments()
    ]
    found = sorted((x, low, high) for ((x, low), (_, high)) in (segment.tolist() for segment in bars))
    wanted = sorted((r.macs, r.accuracy - r.error, r.accuracy + r.error) for r in rows if r.error is not None)
    assert len(found) == len(rows) - 1
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other)


def test_the_tolerances_line_is_so_far_below_the_teacher(drawn: list[Figure]) -> None:
    draw_candidates(table(3), "svg", tolerance=0.75)
    (line,) = [line for line in axes_of(drawn[0]).lines if line.get_linestyle() == "--"]
    assert set(line.get_ydata()) == {93.0 - 0.75}
    assert line.get_label() == "teacher \N{MINUS SIGN} 0.75 points"


@pytest.mark.parametrize(
    ("aims_at", "student", "levels"),
    [
        (STUDENT, 94.0, {"teacher": 92.5, "student": 93.5}),
        (STUDENT, 93.0, {"teacher": 92.5}),
        (TEACHER, 94.0, {"teacher": 92.5}),
    ],
)
def test_a_student_that_is_aimed_at_and_better_than_its_teacher_has_a_line_too(
    drawn: list[Figure], aims_at: str, student: float, levels: dict[str, float]
) -> None:
    rows = [*table(3), Row("unpruned", STUDENT, 106.0, student)]
    draw_candidates(rows, "svg", tolerance=0.5, aims_at=aims_at)
    lines = [line for line in axes_of(drawn[0]).lines if line.get_linestyle() == "--"]
    assert {str(line.get_label()).split(" ")[0]: line.get_ydata()[0] for line in lines} == levels


def test_the_legend_is_inside_the_picture_with_all_that_there_can_be(drawn: list[Figure]) -> None:
    others = [Row("unpruned", STUDENT, 106.0, 94.0), Row("reference-57", BASELINE, 100.0, 92.0)]
    draw_candidates([*table(3), *others], "svg", tolerance=0.75, aims_at=STUDENT)
    (legend,) = drawn[0].legends
    assert len(legend.get_texts()) == 7
    box, page = legend.get_window_extent(), drawn[0].bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0


@pytest.mark.parametrize(("rows", "tolerance"), [(table(3), None), (table(3)[1:], 0.5)])
def test_without_teacher_or_tolerance_there_is_no_line(
    drawn: list[Figure], rows: list[Row], tolerance: float | None
) -> None:
    draw_candidates(rows, "svg", tolerance=tolerance)
    assert not [line for line in axes_of(drawn[0]).lines if line.get_linestyle() == "--"]


def words_of(svg: bytes) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{NAMESPACE}text")]


def test_axes_say_their_units_and_the_legend_what_occurs() -> None:
    words = words_of(draw_candidates(table(3), "svg", tolerance=0.5, split="cross-validation", title="pets"))
    assert "MACs, % of the backbone's" in words
    assert "accuracy on cross-validation, % (bars: standard error)" in words
    assert "pets" in words
    assert {"candidate", "chosen", "baseline", "teacher \N{MINUS SIGN} 0.5 points"} <= set(words)
    bare = words_of(draw_candidates([Row("4", CANDIDATE, 50, 90)], "svg"))
    assert "accuracy on val, %" in bare and "baseline" not in bare and "chosen" not in bare


def test_names_are_no_formulas_no_markup_and_no_control_characters() -> None:
    names = ["$x^2$", "<b>&amp;", "\x1b[31mred\x00", "\ud800", "猫", "_{a}", "x" * 500]
    rows = [Row(name, CANDIDATE, 10.0 + 12 * k, 90.0 + k) for k, name in enumerate(names)]
    svg = draw_candidates(rows, "svg", title="$\\frac{$", split="$v")
    words = words_of(svg)
    for name in ("$x^2$", "<b>&amp;", "\\x1b[31mred\\x00", "\\ud800", "猫", "_{a}", "$\\frac{$", "accuracy on $v, %"):
        assert name in words, words
    assert any(word.startswith("xxx") and word.endswith("…") for word in words)
    assert draw_candidates(rows, "png")


@pytest.mark.parametrize("form", ["svg", "png"])
def test_equal_rows_give_equal_bytes_whatever_the_user_has_set_up(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    import matplotlib as mpl

    first = draw_candidates(table(5), form, tolerance=0.5, title="pets")
    monkeypatch.setitem(mpl.rcParams, "font.size", 20)
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "black")
    monkeypatch.setitem(mpl.rcParams, "svg.hashsalt", "another")
    assert draw_candidates(table(5), form, tolerance=0.5, title="pets") == first
    assert mpl.rcParams["font.size"] == 20, "the user's own settings stay"
    assert draw_candidates(table(5), form, tolerance=0.6, title="pets") != first


def test_the_png_has_twice_the_size_and_something_on_it() -> None:
    image = Image.open(io.BytesIO(draw_candidates(table(3), "png")))
    assert image.size == (1440, 960)
    assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 20


def test_one_row_or_equal_ones_are_drawn_too() -> None:
    assert draw_candidates([Row("4", CHOSEN, 0.0, 100.0, 0.0)], "svg", tolerance=0.5)
    assert draw_candidates([Row("4", CANDIDATE, 50.0, 90.0)] * 5, "svg")


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_it_says_what_to_install() -> None:
    with pytest.raises(UsageError, match="matplotlib is not installed") as raised:
        draw_candidates(table(3), "png")
    assert raised.value.hint == "pip install 'nettailor[plot]'"


@pytest.mark.parametrize(
    "wrong", [{"kind": "other"}, {"macs": math.nan}, {"accuracy": math.inf}, {"error": math.nan}, {"error": -1.0}]
)
def test_a_row_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="K=4"):
        Row(**{"name": "K=4", "kind": CANDIDATE, "macs": 50.0, "accuracy": 90.0, "error": 1.0, **wrong})  # type: ignore[arg-type]


def test_nothing_to_draw_and_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        draw_candidates([], "svg")
    with pytest.raises(ValueError, match="'pdf'"):
        draw_candidates(table(1), "pdf")
