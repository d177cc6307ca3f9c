"""log.jsonl's records as TensorBoard curves, for those who have the extra installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nettailor_cli.core.errors import UsageError


class TensorBoard:
    """Writes event files under `folder`. Raises UsageError when TensorBoard is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("TensorBoard is not installed", "pip install 'nettailor[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder))

    def log(self, record: Mapping[str, Any]) -> None:
        """One epoch: every number of `record` as STAGE/NAME, the attention as STAGE/alpha/PATH."""
        stage, epoch = record["stage"], record["epoch"]
        flat = {**record, **{f"alpha/{path}": alpha for path, alpha in record.get("alpha", {}).items()}}
        for name, value in flat.items():
            if isinstance(value, int | float) and name not in ("epoch", "epochs"):
                self._writer.add_scalar(f"{stage}/{name}", value, epoch)
        self._writer.flush()
