"""Kernels: every ``torch.ops`` name, and every choice between kernels with the measurements behind it, in one place.

Most families of layers have a module of the same name here; ``losses`` and ``optim`` have those of losses and optimizers. Times
are on one core of an AMD EPYC with AVX-512, torch 2.13.0, float32, unless a module says otherwise. A kernel mentioned only by its
name is torch's. Torch's private names are looked up in ``private_names``, since a release may lack some of them.
"""

from funcnet.kernels.choices import CHOICES as CHOICES
from funcnet.kernels.choices import forced as forced
from funcnet.kernels.choices import set_choice as set_choice
from funcnet.kernels.freed_memory import retain_freed_memory as retain_freed_memory
from funcnet.kernels.linear import matmul_library as matmul_library
from funcnet.kernels.linear import set_matmul_library as set_matmul_library
from funcnet.kernels.processor import Processor as Processor
from funcnet.kernels.processor import this_processor as this_processor
from funcnet.kernels.versions import TRIED_TORCH as TRIED_TORCH
