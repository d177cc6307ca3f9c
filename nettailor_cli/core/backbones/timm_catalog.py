"""What timm says of its networks: which weights there are, and what pictures they want. Needs timm.

Pictures are resized bilinearly whatever timm says: that is how this package resizes.
"""

from __future__ import annotations

import functools
import math

from nettailor_cli.core.backbones.families import TIMM
from nettailor_cli.core.backbones.timm_shim import import_timm, name_in_timm
from nettailor_cli.core.preprocessing import Preprocessing


@functools.cache
def tags(arch: str) -> tuple[str, ...]:
    """timm's own for the weights of `arch`, its default first."""
    timm, name = import_timm(), name_in_timm(arch)
    offered = [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]
    default = timm.get_pretrained_cfg(name) if offered else None
    return tuple(sorted(offered, key=lambda tag: default is None or tag != default.tag))


def names(pattern: str) -> list[str]:
    """timm's networks (timm/...) that the shell pattern `pattern` (timm/*lite*) fits, in natural order."""
    return [TIMM + name for name in import_timm().list_models(pattern.removeprefix(TIMM))]


def preprocessing(arch: str, tag: str | None) -> Preprocessing:
    """What pictures have to look like for the weights `tag`; for others as for timm's default of `arch`."""
    timm, name = import_timm(), arch.removeprefix(TIMM)
    known = timm.get_pretrained_cfg(f"{name}.{tag}" if tag in tags(arch) else name)
    if known is None:
        return Preprocessing()
    size = known.input_size[1]
    return Preprocessing(size, tuple(known.mean), tuple(known.std), ratio=(math.floor(size / known.crop_pct), size))


def url(name: str) -> str:
    """Where the file of the weights timm/NAME.TAG is."""
    known = import_timm().get_pretrained_cfg(name.removeprefix(TIMM))
    if known.hf_hub_id:
        return f"https://huggingface.co/{known.hf_hub_id}/resolve/main/{known.hf_hub_filename or 'model.safetensors'}"
    return str(known.url)
