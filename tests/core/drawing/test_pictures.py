from __future__ import annotations

import io

import pytest
from PIL import Image

from nettailor_cli.core.drawing.architecture import architecture
from nettailor_cli.core.drawing.pictures import draw_architecture
from nettailor_cli.core.errors import UsageError
from tests.core.drawing.graphs import document_of, pruned_graph, random_graph


def test_the_png_shows_the_same_scene_at_twice_the_size() -> None:
    document = document_of(pruned_graph(8, 3, 4))
    scene = architecture(document)
    image = Image.open(io.BytesIO(draw_architecture(document, "png"))).convert("RGB")
    assert image.size == (2 * scene.width, 2 * scene.height)
    # a kept block's box is grey as its alpha says, on white; a removed one's is white
    for path in document.graph.universal:
        (box,) = [e.form for e in scene.elements if getattr(e, "name", "") == path.name]
        grey = 255 - path.alpha * (255 - 0x9A)
        pixel = image.getpixel((round(2 * (box.x + 5)), round(2 * (box.y + 5))))  # type: ignore[union-attr]
        assert pixel == pytest.approx((grey,) * 3, abs=2)
    (removed, *_) = [e.form for e in scene.elements if getattr(e, "kind", "") == "removed"]
    assert image.getpixel((round(2 * (removed.x + 5)), round(2 * (removed.y + 5)))) == (255, 255, 255)


def test_equal_documents_give_equal_pngs() -> None:
    document = document_of(pruned_graph(8, 1, 2), data={"name": "$\\frac{ <&>\x00\ud800"})
    assert draw_architecture(document, "png") == draw_architecture(document, "png")
    assert draw_architecture(document, "png") != draw_architecture(document_of(random_graph(8, 1)), "png")


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_there_is_no_png() -> None:
    with pytest.raises(UsageError, match="matplotlib is not installed"):
        draw_architecture(document_of(pruned_graph(8, 1, 2)), "png")
