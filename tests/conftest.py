"""One thread of arithmetic per test process: the networks are tiny, and a test should not depend on the core count."""

import torch

torch.set_num_threads(1)
