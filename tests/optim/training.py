"""Params, gradients, and steps with an optimizer of ours or of torch."""

import pytest
import torch

from funcnet import tree
from funcnet.flattening import Tree
from funcnet.optim.accumulation import MultiSteps
from funcnet.optim.adabelief import AdaBelief
from funcnet.optim.adadelta import Adadelta
from funcnet.optim.adafactor import Adafactor
from funcnet.optim.adagrad import Adagrad
from funcnet.optim.adam import Adam, AdamW
from funcnet.optim.adamax import Adamax
from funcnet.optim.adan import Adan
from funcnet.optim.ademamix import AdEMAMix
from funcnet.optim.adopt import ADOPT
from funcnet.optim.asgd import ASGD
from funcnet.optim.base import Optimizer, State
from funcnet.optim.chaining import Chain, chain
from funcnet.optim.clipping import ClipByGlobalNorm, ClipByValue
from funcnet.optim.groups import by_path, is_matrix
from funcnet.optim.lamb import LAMB
from funcnet.optim.lars import LARS
from funcnet.optim.lbfgs import LBFGS
from funcnet.optim.lion import Lion
from funcnet.optim.lookahead import Lookahead
from funcnet.optim.master_weights import MasterWeights
from funcnet.optim.muon import Muon
from funcnet.optim.nadam import NAdam
from funcnet.optim.novograd import NovoGrad
from funcnet.optim.prodigy import Prodigy
from funcnet.optim.radam import RAdam
from funcnet.optim.rmsprop import RMSprop
from funcnet.optim.rprop import Rprop
from funcnet.optim.schedule_free import ScheduleFree
from funcnet.optim.schedules.decay import StepSchedule
from funcnet.optim.schedules.interpolation import CosineSchedule, LinearSchedule
from funcnet.optim.sgd import SGD
from funcnet.optim.sharpness import SAM
from funcnet.optim.sign_sgd import SignSGD
from funcnet.optim.skipping import SkipNonFinite
from funcnet.optim.sm3 import SM3
from funcnet.optim.soap import SOAP
from funcnet.optim.yogi import Yogi
from funcnet.random import fold_in, key, normal

STEPS = 12


def leaves(seed: int, dtype: torch.dtype = torch.float64) -> Tree:
    """Make params, or gradients: a matrix, a vector that fills no whole register, a 0-d leaf and an empty node."""
    shapes = {"weight": (5, 7), "bias": (5,), "scale": ()}
    drawn = {
        name: normal(fold_in(key(seed), i), shape, dtype=torch.float64).to(dtype)
        for i, (name, shape) in enumerate(shapes.items())
    }
    return ({"weight": drawn["weight"], "bias": drawn["bias"]}, {}, {"inner": {"scale": drawn["scale"]}})


def run(optimizer: Optimizer, params: Tree, steps: int = STEPS, state: State = None, first: int = 0) -> tuple[Tree, State]:
    """Take steps with gradients that depend on the step alone."""
    state = optimizer.init(params) if state is None else state
    dtype = tree.leaves(params)[0].dtype
    for step in range(first, first + steps):
        params, state = optimizer.update(leaves(100 + step, dtype), state, params)
    return params, state


ALL = [
    SGD(lr=0.1),
    SGD(lr=0.1, momentum=0.9),
    SGD(lr=0.1, fused=True),
    SGD(lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True, fused=True),
    SGD(lr=0.1, momentum=0.9, dampening=0.2, maximize=True, fused=True),
    SGD(lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    SGD(lr=0.1, momentum=0.9, dampening=0.2, maximize=True),
    SGD(lr=0.1, momentum=0.9, averaged=True),
    SGD(lr=CosineSchedule(0.1, STEPS), momentum=LinearSchedule(0.5, 0.9, STEPS), weight_decay=StepSchedule(0.1, 5)),
    Adam(lr=0.1),
    Adam(lr=0.1, weight_decay=0.1, amsgrad=True, maximize=True),
    AdamW(lr=CosineSchedule(0.1, STEPS), betas=(0.9, LinearSchedule(0.9, 0.99, STEPS))),
    NAdam(lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
    Lion(lr=0.1, weight_decay=0.1),
    chain(ClipByValue(1.5), ClipByGlobalNorm(2.0), AdamW(lr=0.1, amsgrad=True)),
    MasterWeights(SGD(lr=0.1, momentum=0.9)),
    MasterWeights(Adam(lr=LinearSchedule(0.1, 0.01, STEPS))),
    RAdam(lr=0.1, betas=(0.9, 0.95), weight_decay=0.1),
    Adamax(lr=0.1, weight_decay=0.1),
    Adagrad(lr=LinearSchedule(0.1, 0.01, STEPS), lr_decay=0.1, initial_accumulator_value=0.1),
    Adadelta(lr=1.0, eps=1e-2, maximize=True),
    RMSprop(lr=0.1, alpha=0.9, eps=1e-3, weight_decay=0.1, momentum=0.9, centered=True),
    Rprop(lr=0.1),
    ASGD(lr=0.1, lambd=0.1, t0=2.0),
    LAMB(lr=0.1, weight_decay=0.1),
    LARS(lr=1.0, weight_decay=0.1, trust_coefficient=0.1, nesterov=True),
    AdaBelief(lr=0.1, eps=1e-3, weight_decay=0.1, nesterov=True),
    Yogi(lr=LinearSchedule(0.1, 0.01, STEPS)),
    Adan(lr=0.1, weight_decay=0.1),
    ADOPT(lr=0.1, weight_decay=0.1, nesterov=True, maximize=True),
    SignSGD(lr=0.1, momentum=0.9, weight_decay=0.1),
    AdEMAMix(lr=0.1, weight_decay=0.1),
    NovoGrad(lr=0.1, weight_decay=0.1),
    by_path({"2.*": SGD(lr=0.1), is_matrix: Muon(lr=0.1, ns_dtype=None), "*": Adam(lr=0.1)}),
    Adafactor(lr=0.1, weight_decay=0.1),
    Prodigy(weight_decay=0.1, d0=1e-2),
    LBFGS(lr=0.1, history_size=3),
    SOAP(lr=0.1, precondition_frequency=2),
    SAM(SGD(lr=0.1, momentum=0.9)),
    Lookahead(Adam(lr=0.1), 3),
    MultiSteps(Adam(lr=0.1), 3),
    SkipNonFinite(Adam(lr=0.1), 2),
    ScheduleFree(Adam(lr=0.1, betas=(0.0, 0.9))),
    SM3(lr=0.1),
]


each_optimizer = pytest.mark.parametrize("optimizer", ALL, ids=repr)
SEPARATE = [one for one in [Chain((), o.optimizer) if isinstance(o, Chain) else o for o in ALL] if one.acts_on != "tree"]
each_separate_optimizer = pytest.mark.parametrize("optimizer", SEPARATE, ids=repr)
"""Those whose step of a leaf depends on this leaf only."""


def misfit(grads: Tree = None, state: State = None, params: Tree = None, optimizer: Optimizer | None = None) -> ValueError:
    """Update with something that does not fit, and return the error."""
    optimizer = optimizer or SGD(momentum=0.9)
    with pytest.raises(ValueError, match=r".") as caught:
        optimizer.update(grads or leaves(1), state or optimizer.init(leaves(0)), params or leaves(0))
    return caught.value
