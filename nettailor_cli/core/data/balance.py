"""Classes with few pictures: nothing is weighted, every picture counts alike, and the user is told what that means."""

from __future__ import annotations

from collections.abc import Sequence

from nettailor_cli.core.printable import some_of

UNEVEN = 10
"""From this ratio of the largest class to the smallest on there is a warning."""

_NAMED = 5


def warnings(classes: Sequence[str], training: Sequence[int], validation: int) -> list[str]:
    """What to tell about a split, a line each.

    training: how many pictures of each of `classes` are trained on. validation: how many val has in all.
    """
    told = []
    absent = [name for name, count in zip(classes, training, strict=True) if count == 0]
    if absent:
        told.append(f"no training images of {some_of(absent, _NAMED)}: what the network knew of that may be lost")
    most, least = max(training), min((count for count in training if count), default=0)
    names = [name for name, count in zip(classes, training, strict=True) if count == least]
    has = "has" if len(names) == 1 else "have"
    smallest = f"{some_of(names, _NAMED)} {has} {'a single one' if least == 1 else least}"
    if most >= UNEVEN * least:
        largest = classes[training.index(most)]
        told.append(
            f"uneven classes, {most / least:.0f} to 1: {largest} has {most} training images, {smallest}; nothing is "
            "weighted, every image counts alike, and small classes may be passed over (evaluate shows each class)"
        )
    elif least == 1:
        told.append(f"few training images: {smallest}")
    if validation == 0:
        told.append("no val images, so no accuracy is measured (a class's only image stays in training)")
    elif validation == 1:
        told.append("val has a single image: the accuracy on it is 0 or 100 % and says next to nothing")
    return told
