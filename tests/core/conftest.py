"""One thread for all of these tests: on a busy machine threads that wait for each other take many times as long."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
