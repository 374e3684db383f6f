"""What holds for every test: examples drawn the same way in each run, and one thread, since workers share the cores."""

import torch
from hypothesis import settings

settings.register_profile("funcnet", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("funcnet")

torch.set_num_threads(1)
