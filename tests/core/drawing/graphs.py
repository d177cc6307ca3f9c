"""Documents to draw, made without torch."""

from __future__ import annotations

import random
from typing import Any

from nettailor_cli.core.delta import PRUNED, ModelDocument
from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path, sources_of_proxies
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.pruning import prune


def random_graph(blocks: int, skips: int | None, seed: int = 0) -> Graph:
    """A whole student with attention drawn by lot."""
    rng = random.Random(seed)
    paths: list[Path] = []
    for node in range(1, blocks + 1):
        sources = sources_of_proxies(node, skips)
        weights = [rng.random() + 0.01 for _ in range(len(sources) + 1)]
        alphas = [weight / sum(weights) for weight in weights]
        paths.append(Path(node - 1, node, UNIVERSAL, alphas[0], Cost(100, 1000)))
        paths += [Path(s, node, PROXY, a, Cost(5, 50)) for s, a in zip(sources, alphas[1:], strict=True)]
    return Graph(blocks=(Cost(100, 1000),) * blocks, stem=Cost(10, 100), head=Cost(7, 7), paths=tuple(paths))


def pruned_graph(blocks: int, skips: int | None, remove: int) -> Graph:
    return prune(random_graph(blocks, skips), remove, 0.1).graph


def document_of(graph: Graph, **changes: Any) -> ModelDocument:
    plain: dict[str, Any] = {
        "stage": PRUNED,
        "backbone": "resnet18.imagenet1k_v1",
        "fingerprint": "ab" * 32,
        "graph": graph,
        "classes": ("cat", "dog"),
        "preprocessing": Preprocessing(size=96),
        "student": {"bn_stats": "frozen", "proxy_width": None},
        "data": {"name": "pets", "digest": "cd" * 32},
        "settings": {},
        "metrics": {},
    }
    return ModelDocument(**{**plain, **changes})
