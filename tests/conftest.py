"""What holds for every test: examples drawn the same way in each run, and one thread for each of xdist's workers."""

import os

import torch
from hypothesis import settings

settings.register_profile("funcnet", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("funcnet")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
