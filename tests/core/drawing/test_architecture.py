from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from nettailor_cli.core.drawing.architecture import architecture
from nettailor_cli.core.drawing.scene import Box, Curve, Disc, Point, Scene, Text, text_width
from nettailor_cli.core.drawing.svg import to_svg
from nettailor_cli.core.graph import PROXY, Cost, Graph, Path, untouched
from tests.core.drawing.graphs import document_of, pruned_graph, random_graph

NAMESPACE = "{http://www.w3.org/2000/svg}"
GRAPHS = {
    "8 blocks": pruned_graph(8, 3, 4),
    "8 blocks, nothing removed": random_graph(8, 3),
    "16 blocks, one skip": pruned_graph(16, 1, 6),
    "16 blocks, dense": pruned_graph(16, None, 7),
    "50 blocks": pruned_graph(50, 3, 20),
    "50 blocks, dense": pruned_graph(50, None, 25),
    "a teacher": untouched((Cost(1, 2),) * 16, Cost(1, 1), Cost(1, 1)),
    "one block": untouched((Cost(1, 2),), Cost(0, 0), Cost(0, 0)),
}
graphs = pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))


def svg_of(graph: Graph) -> ElementTree.Element:
    return ElementTree.fromstring(to_svg(architecture(document_of(graph))))


def of_class(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if element.get("class") == kind]


@graphs
def test_one_element_per_path_with_its_alpha_as_opacity_and_none_for_paths_that_are_gone(graph: Graph) -> None:
    root = svg_of(graph)
    drawn = [*of_class(root, "universal"), *of_class(root, "proxy")]
    wanted = {path.name.replace(" ", "-"): path for path in graph.paths}
    assert sorted(element.get("id", "") for element in drawn) == sorted(wanted)
    for element in drawn:
        path = wanted[element.get("id", "")]
        assert element.get("class") == path.kind
        assert float(element.get("opacity", "1")) == pytest.approx(path.alpha, abs=1e-4)
        title = element.find(f"{NAMESPACE}title")
        assert title is not None and title.text is not None and title.text.startswith(f"{path.name}: alpha")
    assert {element.get("id") for element in root.iter() if element.get("id")} == set(wanted)


@graphs
def test_removed_blocks_are_dashed_outlines_and_nodes_that_are_gone_dashed_circles(graph: Graph) -> None:
    root = svg_of(graph)
    kept = {path.sink for path in graph.universal}
    removed = of_class(root, "removed")
    titles = [element.findtext(f"{NAMESPACE}title") for element in removed]
    assert titles == [f"universal {node}: removed" for node in range(1, graph.last + 1) if node not in kept]
    assert all(element.get("stroke-dasharray") and element.get("fill") == "#ffffff" for element in removed)
    gone = {element.findtext(f"{NAMESPACE}title") for element in of_class(root, "gone")}
    assert gone == {f"node {node}: gone" for node in range(1, graph.last + 1) if node not in graph.nodes}


def test_an_arc_leaves_its_source_and_arrives_at_its_sink() -> None:
    graph = pruned_graph(8, 3, 4)
    scene = architecture(document_of(graph))
    discs = [e.form for e in scene.elements if not isinstance(e, Text) and e.kind in ("node", "gone")]
    centres = [disc.x for disc in discs if isinstance(disc, Disc)]
    assert len(centres) == 9
    for path in graph.proxies:
        (shape,) = [e for e in scene.elements if not isinstance(e, Text) and e.name == path.name]
        assert isinstance(shape.form, Curve)
        ((start, *_, end),) = shape.form.pieces
        assert abs(start[0] - centres[path.source]) < 9
        assert abs(end[0] - centres[path.sink]) < 9


def test_an_arc_across_the_edge_of_a_row_goes_on_in_the_next_at_the_same_height() -> None:
    graph = random_graph(50, 3).keeping(lambda path: path.is_universal or path.name == "proxy 15-18")
    far = Path(2, 49, PROXY, 0.5, Cost(1, 1))
    scene = architecture(document_of(Graph(graph.blocks, graph.stem, graph.head, (*graph.paths, far))))
    shapes = [element for element in scene.elements if not isinstance(element, Text)]
    pieces = {shape.name: shape.form.pieces for shape in shapes if isinstance(shape.form, Curve) and shape.name}
    rows = [shape.form for shape in shapes if isinstance(shape.form, Disc) and shape.kind == "node"]
    bases = sorted({disc.y for disc in rows})
    assert len(bases) == 3
    assert {name: len(parts) for name, parts in pieces.items()} == {"proxy 15-18": 2, "proxy 2-49": 3}
    left, right = (edge(disc.x for disc in rows if disc.y == bases[0]) for edge in (min, max))  # nodes 0 and 17
    for name in pieces:
        above, below = pieces[name][:2]
        # node 17 ends the first row and begins the second
        level = bases[0] - level_at(above, right)
        assert level > 20
        assert bases[1] - level_at(below, left) == pytest.approx(level, abs=0.1)


def level_at(piece: tuple[Point, ...], x: float) -> float:
    """y of the Bézier curve `piece` where it passes x."""
    steps = [step / 10_000 for step in range(10_001)]
    t = min(steps, key=lambda t: abs(bernstein(piece, t, 0) - x))
    assert abs(bernstein(piece, t, 0) - x) < 0.5
    return bernstein(piece, t, 1)


def bernstein(piece: tuple[Point, ...], t: float, axis: int) -> float:
    return sum(math.comb(3, k) * t**k * (1 - t) ** (3 - k) * piece[k][axis] for k in range(4))


@graphs
def test_numbers_don_t_cover_each_other_and_everything_lies_in_the_picture(graph: Graph) -> None:
    scene = architecture(document_of(graph))
    texts = [element for element in scene.elements if isinstance(element, Text)]
    numbers = [text for text in texts if re.fullmatch(r"[01]\.\d\d|\d+", text.text)]
    for one, other in itertools.combinations(numbers, 2):
        wide = (text_width(one.text, one.size) + text_width(other.text, other.size)) / 2
        assert abs(one.x - other.x) >= wide or abs(one.y - other.y) >= (one.size + other.size) / 2, (one, other)
    for text in texts:
        assert left_of(text) >= 0 and left_of(text) + text_width(text.text, text.size) <= scene.width, text
    for x, y in corners(scene):
        assert 0 <= x <= scene.width and 0 <= y <= scene.height


def left_of(text: Text) -> float:
    return text.x - text_width(text.text, text.size) * {"start": 0, "middle": 0.5, "end": 1}[text.anchor]


def corners(scene: Scene) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for element in scene.elements:
        match element:
            case Text(x, y):
                found.append((x, y))
            case _:
                match element.form:
                    case Box(x, y, width, height):
                        found += [(x, y), (x + width, y + height)]
                    case Disc(x, y, radius):
                        found += [(x - radius, y - radius), (x + radius, y + radius)]
                    case Curve(pieces):
                        found += [point for piece in pieces for point in (piece[0], piece[-1])]
    return found


def test_every_alpha_of_a_small_student_is_written_out() -> None:
    graph = pruned_graph(8, 3, 4)
    numbers = [e.text for e in architecture(document_of(graph)).elements if isinstance(e, Text)]
    for path in graph.paths:
        assert f"{path.alpha:.2f}" in numbers, path


def test_the_heading_says_what_it_is_and_what_it_costs() -> None:
    graph = Graph(
        blocks=(Cost(100, 1000), Cost(300, 3000)),
        stem=Cost(50, 500),
        head=Cost(50, 500),
        paths=(*untouched((Cost(100, 1000),), Cost(0, 0), Cost(0, 0)).paths, Path(1, 2, PROXY, 1.0, Cost(25, 250))),
    )
    texts = [e.text for e in architecture(document_of(graph)).elements if isinstance(e, Text)]
    assert texts[0] == "resnet18.imagenet1k_v1 for pets, 2 classes (pruned)"
    # (50 + 100 + 25 + 50) / 500 and ten times that
    assert texts[1] == "1 of 2 blocks, 1 proxies; 45.0 % of the backbone's MACs, 45.0 % of its parameters"


def test_the_legend_explains_what_occurs_and_nothing_else() -> None:
    def words(graph: Graph) -> str:
        return " | ".join(e.text for e in architecture(document_of(graph)).elements if isinstance(e, Text))

    teacher = words(GRAPHS["a teacher"])
    assert "universal block" in teacher and "proxy from" not in teacher and "removed" not in teacher
    assert "proxy from 1 node back | 2 nodes back | 3 nodes back | opacity" in words(random_graph(8, 3))
    assert "4 or 5 nodes back" in words(random_graph(8, None))
    assert "proxy from 2 nodes back" in words(
        Graph((Cost(1, 1),) * 2, Cost(1, 1), Cost(1, 1), (Path(0, 2, PROXY, 1.0, Cost(1, 1)),))
    )


HOSTILE = (
    "<script>alert(1)</script>",
    "a & b",
    "\"quoted'",
    "\x1b[31mred",
    "two\nlines",
    "\ud800",
    "\0",
    "\ufffe",
    "]]>",
    "猫" * 80,
)


def test_names_from_files_stay_text() -> None:
    document = document_of(
        pruned_graph(8, 3, 4),
        classes=HOSTILE,
        data={"name": HOSTILE[0] + HOSTILE[3]},
        backbone='r&"\x07<g>',
        fingerprint="</desc>",
    )
    text = to_svg(architecture(document))
    root = ElementTree.fromstring(text.encode())
    description = root.findtext(f"{NAMESPACE}desc") or ""
    for name in (
        "<script>alert(1)</script>",
        "a & b",
        "\\x1b[31mred",
        "two\\nlines",
        "\\ud800",
        "\\x00",
        "\\ufffe",
        "]]>",
    ):
        assert name in description
    assert not any("script" in element.tag for element in root.iter())
    heading = next(e.text for e in root.iter(f"{NAMESPACE}text"))
    assert heading and heading.startswith('r&"\\x07<g> for <script>alert(1)</script>\\x1b[31mred, 10 classes')


def test_a_title_that_is_too_long_is_cut() -> None:
    scene = architecture(document_of(pruned_graph(8, 3, 4), data={"name": "long " * 100}))
    title = next(e for e in scene.elements if isinstance(e, Text))
    assert title.text.endswith("…")
    assert title.x + 1.1 * text_width(title.text, title.size) <= scene.width, "bold is wider"


def test_equal_documents_give_equal_pictures_and_other_alphas_another_one() -> None:
    def drawn(seed: int) -> str:
        return to_svg(architecture(document_of(random_graph(8, 3, seed))))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_drawing_svg_loads_no_heavy_module() -> None:
    code = (
        "import sys\n"
        "from nettailor_cli.core.drawing.pictures import draw_architecture\n"
        "from tests.core.drawing.graphs import document_of, random_graph\n"
        "assert draw_architecture(document_of(random_graph(8, 3)), 'svg')\n"
        "print([name for name in ('torch', 'numpy', 'matplotlib', 'PIL') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
