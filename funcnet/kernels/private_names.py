"""Torch's private names: each is looked up once, here, with a fallback for releases that lack it.

A private name can change or vanish with any release. Each is therefore looked up and called once, on one number, when this module
is imported. If torch lacks it, or rejects the call, a function of ``plain`` replaces it, or ``None`` if the module that uses the
name has a formula instead. Other modules import the result, which adds no time to a step.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch

from funcnet.kernels.plain import (
    PlainDispatchMode,
    plain_adaptive_avg_pool_backward,
    plain_batch_norm_functional,
    plain_count_compiling,
    plain_foreach_add,
    plain_foreach_add_,
    plain_foreach_addcdiv,
    plain_foreach_addcdiv_,
    plain_foreach_clone,
    plain_foreach_copy_,
    plain_foreach_lerp,
    plain_foreach_lerp_,
    plain_foreach_maximum,
    plain_foreach_maximum_,
    plain_foreach_mul,
    plain_foreach_norm,
    plain_foreach_sqrt,
    plain_is_any_autocast,
    plain_is_any_compiling,
    plain_is_batched,
    plain_is_key_in_tls,
    plain_is_transformed,
    plain_log_softmax_backward,
    plain_nearest_exact,
    plain_nearest_exact_backward,
    plain_prelu_backward,
    plain_scan,
    plain_softmax_backward,
)

FOUND: dict[str, bool] = {}
"""Whether this release of torch has each name, by its path below ``torch``."""

_aten = torch.ops.aten
_x, _step = torch.zeros(1, device="cpu"), torch.ones((), device="cpu")


def found(name: str, otherwise: Any, trial: Callable[[Any], Any] = lambda one: one) -> Any:
    """Return the object of torch with this name if a trial call of it succeeds, else ``otherwise``."""
    try:
        one = attrgetter(name)(torch)
        trial(one)
    except Exception:
        FOUND[name] = False
        return otherwise
    FOUND[name] = True
    return one


def builtin(name: str) -> Any:
    """Return the C function behind a function of ``torch.nn.functional``; if there is none, the operator of the same name."""
    return found(f"_C._nn.{name}", getattr(_aten, name))


def direct(kernel: Any) -> Any:
    """Return the C function of an operator, for eager mode only: bypassing the operator's Python code saves 0.4 µs per call."""
    return getattr(kernel, "_op", kernel)


def constant(function: Any) -> Any:
    """Decorate a function that Dynamo calls instead of tracing, and whose result it treats as a constant.

    ``torch.compiler.assume_constant_result`` sets the same attribute, but imports Dynamo, which takes 0.8 s.
    """
    function._dynamo_marked_constant = True
    return function


# Transforms of torch.func, and tracing. The top of the stack is ``None`` if no transform is active.
interpreter = found("_C._functorch.peek_interpreter_stack", constant(plain_is_transformed), lambda f: f())
interpreters = found("_C._functorch.get_interpreter_stack", None, lambda f: f())
transform_kinds = found("_C._functorch.TransformType", None, lambda kinds: (kinds.Grad, kinds.Jvp))
is_batched = found("_C._functorch.is_batchedtensor", plain_is_batched, lambda f: f(_x))
is_wrapped = found("_C._functorch.is_functorch_wrapped_tensor", None, lambda f: f(_x))
unwrapped = found("_C._functorch.get_unwrapped", None)
is_batched_by_autograd = found("_C._functorch.is_legacy_batchedtensor", constant(lambda x: False), lambda f: f(_x))
dispatch_modes = found("_C._len_torch_dispatch_stack", constant(plain_count_compiling), lambda f: f() + 0)
tracing_context = found("_guards.TracingContext.try_get", constant(plain_is_any_compiling), lambda f: f())
is_any_autocast = found("_C._is_any_autocast_enabled", plain_is_any_autocast, lambda f: f())
is_key_in_tls = found("_C._is_key_in_tls", plain_is_key_in_tls, lambda f: f("tree_manager_containers"))
TensorGuards = found(
    "_C._dynamo.guards.TensorGuards", None, lambda f: f(_x, dynamic_dims_sizes=None, dynamic_dims_strides=None).check(_x)
)


def scan(*arguments: Any, **options: Any) -> Any:
    """Call torch's ``scan``, which only traced code uses. A lookup at import would import Dynamo, which takes 0.8 s."""
    operator = getattr(getattr(torch, "_higher_order_ops", None), "scan", None)
    return plain_scan(*arguments, **options) if operator is None else operator(*arguments, **options)


# Processes.
process_group_named = found("distributed.distributed_c10d._resolve_process_group", None)

_forward_ad = found("autograd.forward_ad", None, lambda module: module._current_level + 0)


def is_forward_mode() -> bool:
    """Return whether a level of forward-mode differentiation is active, outside of ``torch.func``."""
    return _forward_ad is not None and _forward_ad._current_level >= 0


_LAYOUTS = ("_autograd_backward_strict_mode_banned_ops", "_autograd_backward_strict_mode_conditional_banned_ops")
_KNOWN = ("layout", "stride", "is_contiguous")
_refused_backward: dict[str, list[str]] = {}


@constant
def set_layouts_of_gradients(known: bool) -> None:
    """Set whether Dynamo allows a backward pass to read the layout and strides of a gradient; called while Dynamo traces it.

    By default Dynamo rejects these reads, since nothing guarantees that the gradient is dense when the code runs. A VJP reads
    them to reject gradients that are not.
    """
    config = getattr(getattr(torch, "_dynamo", None), "config", None)
    for name in [name for name in _LAYOUTS if hasattr(config, name)]:
        refused = _refused_backward.setdefault(name, [*getattr(config, name)])
        setattr(config, name, [one for one in refused if not known or one not in _KNOWN])


# Lists of tensors.
foreach_add = found("_foreach_add", plain_foreach_add, lambda f: f([_x], [_x], alpha=1.0))
foreach_add_ = found("_foreach_add_", plain_foreach_add_, lambda f: f([_x.clone()], [_x], alpha=1.0))
foreach_lerp = found("_foreach_lerp", plain_foreach_lerp, lambda f: f([_x], [_x], 0.5))
foreach_lerp_ = found("_foreach_lerp_", plain_foreach_lerp_, lambda f: f([_x.clone()], [_x], 0.5))
foreach_mul = found("_foreach_mul", plain_foreach_mul, lambda f: (f([_x], 2.0), f([_x], _step), f([_x], [_x])))
foreach_norm = found("_foreach_norm", plain_foreach_norm, lambda f: f([_x], 2, dtype=torch.float64))
foreach_copy_ = found("_foreach_copy_", plain_foreach_copy_, lambda f: f([_x.clone()], [_x]))
foreach_sqrt = found("_foreach_sqrt", plain_foreach_sqrt, lambda f: f([_x]))
foreach_maximum = found("_foreach_maximum", plain_foreach_maximum, lambda f: f([_x], [_x]))
foreach_maximum_ = found("_foreach_maximum_", plain_foreach_maximum_, lambda f: f([_x.clone()], [_x]))
foreach_addcdiv = found("_foreach_addcdiv", plain_foreach_addcdiv, lambda f: f([_x], [_x], [_x], 1.0))
foreach_addcdiv_ = found("_foreach_addcdiv_", plain_foreach_addcdiv_, lambda f: f([_x.clone()], [_x], [_x], 1.0))
foreach_clone = found("_foreach_clone", plain_foreach_clone, lambda f: f([_x]))

# Whole steps of optimizers.


def _try_step(moments: int, steps: bool, **numbers: Any) -> Callable[[Any], Any]:
    """Return a trial call of a fused step on one number, with this many moments."""
    columns = [[_x.clone()] for _ in range(2 + moments)]
    return lambda f: f(*columns, *[[_step]] * steps, lr=0.1, weight_decay=0.0, maximize=False, **numbers)


def _try_adam(f: Any) -> None:
    columns = [[_x.clone()] for _ in range(5)]
    numbers = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, "eps": 1e-8, "maximize": False}
    f(*columns, [_step], amsgrad=True, **numbers)


fused_sgd = found(
    "_fused_sgd_", None, _try_step(1, steps=False, momentum=0.9, dampening=0.0, nesterov=False, is_first_step=False)
)
fused_adam = found("_fused_adam_", None, _try_adam)
fused_adamw = found("_fused_adamw_", None, _try_adam)
fused_adagrad = found("_fused_adagrad_", None, _try_step(1, steps=True, lr_decay=0.0, eps=1e-8))


def _try_mode(mode: Any) -> None:
    with mode():
        pass


DispatchMode = found("utils._python_dispatch.TorchDispatchMode", PlainDispatchMode, _try_mode)
"""The base class of modes that see every kernel call; the fallback has ``counted`` instead, torch's count."""

HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
"""Whether this build of torch has oneDNN."""

# Processes. Without this name, failures of collectives keep the messages of gloo and NCCL.
default_store = found("distributed.distributed_c10d._get_default_store", None)
collectives_started = found("_C._distributed_c10d.ProcessGroup._get_sequence_number_for_group", None)

# Kernels.
softmax_backward = found("_softmax_backward_data", plain_softmax_backward, lambda f: f(_x, _x, 0, torch.float32))
log_softmax_backward = found("_log_softmax_backward_data", plain_log_softmax_backward, lambda f: f(_x, _x, 0, torch.float32))
prelu_backward = found("ops.aten._prelu_kernel_backward.default", plain_prelu_backward, lambda f: f(_x, _x, _x))
batch_norm_functional = found("ops.aten._native_batch_norm_legit_functional.default", plain_batch_norm_functional)
weight_norm = found("ops.aten._weight_norm_interface.default", None)
weight_norm_backward = found("ops.aten._weight_norm_interface_backward.default", None)
flash = found("ops.aten._scaled_dot_product_flash_attention_for_cpu.default", None)
flash_backward = found("ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default", None)
onednn_linear = found("ops.mkldnn._linear_pointwise.default", None)
onednn_takes_bfloat16 = found("ops.mkldnn._is_mkldnn_bf16_supported", lambda: False, lambda f: f())
onednn_rnn = found("ops.aten.mkldnn_rnn_layer.default", None)
onednn_rnn_backward = found("ops.aten.mkldnn_rnn_layer_backward.default", None)
adaptive_avg_pools = {
    2: found("ops.aten._adaptive_avg_pool2d.default", _aten.adaptive_avg_pool2d.default),
    3: found("ops.aten._adaptive_avg_pool3d.default", _aten.adaptive_avg_pool3d.default),
}
adaptive_avg_pools_backward = {
    n: found(f"ops.aten._adaptive_avg_pool{n}d_backward.default", plain_adaptive_avg_pool_backward) for n in (2, 3)
}
nearest_exact = {n: found(f"ops.aten._upsample_nearest_exact{n}d.default", plain_nearest_exact) for n in (1, 2, 3)}
nearest_exact_backward = {
    n: found(f"ops.aten._upsample_nearest_exact{n}d_backward.default", plain_nearest_exact_backward) for n in (1, 2, 3)
}
