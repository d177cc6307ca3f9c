"""How learning rates move over a run: a factor per step, the same for every group of parameters."""

from __future__ import annotations

import math

from nettailor_cli.core.settings import Settings


def rate_factor(settings: Settings, step: int, steps: int, steps_per_epoch: int) -> float:
    """What the peak learning rate is multiplied with at `step` (0-based) of `steps`: in (0, 1].

    Rises in a line over the first `warmup` share of the steps, then falls as half a cosine to 0, or to a tenth after
    every `step_epochs` epochs.
    """
    rising = math.ceil(settings.warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if settings.schedule == "step":
        return 0.1 ** (step // (settings.step_epochs * steps_per_epoch))
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
