"""Explanations: find out which argument is wrong after a layer has failed.

A kernel fails with its own message, or a cheap comparison raises ``Misfit``. These functions look for the reason in this order:
sizes not inferred yet, params of other shapes, the layer's own rule for x, tensors that are sparse, nested or on other devices,
dtypes. The messages have the form ``who: rule, got what``; an error made by ``value_error`` has it already.
"""

import math
import os
from contextlib import suppress
from typing import Any, NoReturn

import torch
from torch import Tensor

from funcnet import tree
from funcnet.checks import Misfit, came, missing_sizes, params_error, shapes_of, unsized
from funcnet.errors import add_location, describe, explains, is_located, value_error
from funcnet.traits import Traits
from funcnet.value import Value, parts

# The size of main memory in bytes; infinite if the system does not report it.
_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf

# The errors that kernels, and the Python code before them, raise for invalid tensors.
_KERNELS = (Misfit, RuntimeError, LookupError, TypeError, AttributeError, ValueError, ZeroDivisionError, OverflowError)

_SHARDED = (
    "params that are sharded over workers need a step of distributed.data_parallel or distributed.tensor_parallel; "
    "distributed.unshard(params) gathers them"
)


def explain_error(layer: Any, params: Any, x: Any, error: Exception, apply: Any = None) -> Exception:
    """Return the error that names the wrong argument if ``apply(params, x)`` raised ``error``; ``error`` itself if none is found.

    ``apply`` is the function that raised it: the layer's own, or one that it calls with ``super()``.
    """
    if _is_due_to_sharded_params(params, x, error):
        return value_error(layer, _SHARDED, f"{_first_dtensor(params)} and {described(x)}")
    if _is_final(layer, error):
        return _with_note(layer, error)
    if missing_sizes(layer):
        return unsized(layer)
    shapes = layer.param_shapes()
    if shapes is not None and shapes_of(params) != shapes:
        return params_error(layer, params)
    rule = layer.complaint(x) if _complaint_applies(layer, apply or type(layer).apply) else None
    if rule:
        return value_error(layer, rule, came(x))
    return _explain_difference(layer, params, x, error) or _explain_misfit(
        layer, "params and x must fit each other", came(x), error
    )


def require_memory(layer: Any, rng: Any) -> None:
    """Raise for params that do not fit in main memory, before sampling them: with overcommitted memory that could take hours."""
    with suppress(TypeError):  # if sizes of an inner layer are missing
        if not missing_sizes(layer) and not fits(rng, *(layer.param_shapes() or {}).values()):
            raise _too_large(layer)


def fits(rng: Any, *shapes: tuple[int, ...]) -> bool:
    """Return whether float32 tensors of these shapes fit in main memory, with 8 more bytes per element to sample the largest.

    With a key on another device, they are not in main memory.
    """
    counts = [math.prod(shape) for shape in shapes]
    return not counts or (isinstance(rng, Tensor) and not rng.is_cpu) or 4 * sum(counts) + 8 * max(counts) <= _MEMORY


def explain_init_error(layer: Any, error: Exception) -> Exception:
    """Return the error for params that are too large if ``init`` ran out of memory; else ``error`` itself."""
    return (
        _too_large(layer)
        if _is_out_of_memory(error) and not explains(error) and layer.param_shapes()
        else _with_note(layer, error)
    )


def _too_large(layer: Any) -> ValueError:
    shapes = layer.param_shapes()
    size = 4 * sum([math.prod(shape) for shape in shapes.values()]) / 2**30
    named = ", ".join([f"{name} {tuple(shape)}" for name, shape in shapes.items()])
    return value_error(layer, "params must fit in memory", f"{size:.1f} GiB of {named}")


def _is_final(layer: Any, error: Exception) -> bool:
    """Return whether to raise an error unchanged: it is clear, no argument is wrong, or user code inside raised it."""
    within = is_located(error) and _has_user_code(layer)
    apart = _is_out_of_memory(error) or _is_about_derivatives(error) or _is_about_dtensors(error)
    return explains(error) or apart or within


def _with_note(layer: Any, error: Exception) -> Exception:
    """Return an error that needs no explanation; one about trees, keys or random numbers gets a note with the layer."""
    if explains(error) and not is_located(error) and str(error).startswith(("tree:", "rng:", "random:")):
        add_location(error, repr(layer))
    return error


def _complaint_applies(layer: Any, apply: Any) -> bool:
    """Return whether ``complaint`` describes this ``apply``, and not one of funcnet that a user's class overrides."""
    complaint = type(layer).complaint
    return _is_ours(apply) or not _is_ours(complaint) or complaint is Traits.complaint


def _is_ours(kind: Any) -> bool:
    return str(getattr(kind, "__module__", "")).startswith(("funcnet.", "torch"))


def _has_user_code(layer: Any) -> bool:
    """Return whether a layer, or a layer or function in its fields, is user code, which can fail for other reasons."""
    code = [type(one) if isinstance(one, Value) else one for one in parts(layer) if isinstance(one, Value) or callable(one)]
    return not all(map(_is_ours, code))


def explain_backward_error(layer: Any, params: Any, gy: Any, error: Exception) -> Exception:
    """Return the error that names the wrong argument if a backward method raised ``error``; ``error`` itself if none is found."""
    if isinstance(error, (ValueError, *_KERNELS)) and not is_located(error) and _is_due_to_autocast(params, gy):
        rule = "gradients must be computed outside of torch.autocast, which is for predictions; use cast(layer, dtype) to train"
        return value_error(layer, rule, described(gy))
    if _is_final(layer, error):
        return _with_note(layer, error)
    shapes = layer.param_shapes()
    if shapes is not None and shapes_of(params) != shapes:
        return params_error(layer, params)
    if gy is None or isinstance(gy, (bool, int, float, str)):
        return value_error(layer, "gy must be the gradient of y, with its structure and shape", repr(gy))
    odd = _describe_odd_leaf((params, gy))
    if odd:
        return caused(value_error(layer, "params and gy must be trees of dense tensors on one device", odd), error)
    rule = "gy must have the structure, shape, dtype and device of y, and cache be what apply returned"
    return _explain_misfit(layer, rule, described(gy), error)


def _is_due_to_autocast(params: Any, gy: Any) -> bool:
    """Return whether gy or a param differs in dtype from the rest because autocast is on."""
    devices = {leaf.device.type for leaf in tree.leaves(gy) if isinstance(leaf, Tensor)}
    dtypes = _dtypes(gy) | _dtypes(params)
    return len(dtypes) > 1 and any(map(torch.is_autocast_enabled, devices))


def explain_inverse_error(layer: Any, params: Any, y: Any, error: Exception) -> Exception:
    """Return the error that names the wrong argument if ``inverse`` raised ``error``; ``error`` itself if none is found."""
    if _is_final(layer, error):
        return _with_note(layer, error)
    shapes = layer.param_shapes()
    if shapes is not None and shapes_of(params) != shapes:
        return params_error(layer, params)
    odd = _describe_odd_leaf((params, y))
    rule = "params and y must be trees of dense tensors on one device" if odd else "y must be an output of the layer"
    return _explain_misfit(layer, rule, odd or described(y), error)


def explain_update_error(layer: Any, params: Any, error: Exception) -> Exception:
    """Return the error that names the wrong argument if ``update_stats`` raised ``error``; ``error`` itself if none is found."""
    if _is_final(layer, error):
        return _with_note(layer, error)
    shapes = layer.param_shapes()
    if shapes is not None and shapes_of(params) != shapes:
        return params_error(layer, params)
    odd = _describe_odd_leaf(params)
    rule = "params must be a tree of dense tensors on one device" if odd else "params and cache must be of the same call of apply"
    return _explain_misfit(layer, rule, odd or f"params of {_join_dtypes(_dtypes(params)) or 'no dtype'}", error)


def explain_loss_error(loss: Any, y: Any, target: Any, error: Exception) -> Exception:
    """Return the error that names the wrong argument if a loss raised ``error``; ``error`` itself if none is found."""
    if _is_final(loss, error):
        return _with_note(loss, error)
    odd = _describe_odd_leaf((y, target))
    rule = "y and target must be dense tensors on one device" if odd else "y and target must fit each other"
    return _explain_misfit(loss, rule, odd or f"{described(y)} and {described(target)}", error)


def explain_metric_error(metric: Any, rule: str, given: tuple[Any, ...], error: Exception) -> Exception:
    """Return the error with the broken rule of a metric that raised ``error``; ``error`` itself if it is final."""
    if _is_final(metric, error):
        return _with_note(metric, error)
    odd = _describe_odd_leaf(given)
    return _explain_misfit(metric, rule, odd or " and ".join(map(describe, given)), error)


def _explain_difference(layer: Any, params: Any, x: Any, error: Exception) -> Exception | None:
    """Explain an error if some tensors differ from the rest in kind, device or dtype."""
    odd = _describe_odd_leaf((params, x))
    if odd and isinstance(error, _KERNELS):
        return caused(value_error(layer, "params and x must be trees of dense tensors on one device", odd), error)
    want, got = _dtypes(params), _dtypes(x)
    other = want and got and want != got and not is_located(error)  # an inner layer may have another x
    if other and isinstance(error, (Misfit, RuntimeError)):  # a kernel's error, not the layer's own
        return caused(value_error(layer, f"x must have the dtype of the params, {_join_dtypes(want)}", _join_dtypes(got)), error)
    return None


def _explain_misfit(layer: Any, rule: str, got: str, error: Exception) -> Exception:
    """Explain an error of a kernel; an error in a user's code stays unchanged."""
    if isinstance(error, Misfit) or (isinstance(error, _KERNELS) and not _has_user_code(layer)):
        return caused(value_error(layer, rule, got), error)
    return error


def caused(explained: Exception, error: Exception) -> Exception:
    """Return an explanation whose cause is the kernel's error: the explanation is likely, not certain."""
    explained.__cause__ = None if isinstance(error, Misfit) else error
    return explained


def described(values: Any) -> str:
    """Describe a tensor, or each of several."""
    return " and ".join(map(describe, values)) if isinstance(values, tuple) and values else describe(values)


def _describe_odd_leaf(values: Any) -> str:
    """Describe the first leaf that is not a dense tensor or not on the device of the first tensor; ``""`` if all are fine."""
    leaves = tree.leaves(values)
    device = next((leaf.device for leaf in leaves if isinstance(leaf, Tensor)), None)
    odd = (one for one in leaves if not isinstance(one, Tensor) or not _is_dense(one) or one.device != device)
    return next(map(describe, odd), "")


def _is_dense(x: Tensor) -> bool:
    return x.layout is torch.strided and not x.is_nested


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, which is not the fault of an argument."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _is_about_derivatives(error: Exception) -> bool:
    """Return whether a kernel has no derivative, or a transform of ``torch.func`` cannot follow a write."""
    words = str(error)
    return isinstance(error, RuntimeError) and any(
        said in words
        for said in ("forward AD", "derivative for", "needed for gradient computation", "vmap: inplace", "functorch transform")
    )


def _is_about_dtensors(error: Exception) -> bool:
    """Return whether a kernel has no rule for DTensors, or got plain tensors with them."""
    words = str(error)
    return isinstance(error, RuntimeError) and any(said in words for said in ("sharding strategy", "torch.Tensor and DTensor"))


def _is_due_to_sharded_params(params: Any, x: Any, error: Exception) -> bool:
    """Return whether params are DTensors and x is not, as when a user gives sharded params to a net or a plain step."""
    return _is_about_dtensors(error) and _first_dtensor(params) is not None and _first_dtensor(x) is None


def _first_dtensor(values: Any) -> str | None:
    """Describe the first DTensor of a tree."""
    return next((describe(leaf) for leaf in tree.leaves(values) if hasattr(leaf, "device_mesh")), None)


def _dtypes(values: Any) -> set[Any]:
    """Return the dtypes of the tensors with axes; only the floating ones if there are any."""
    found = {leaf.dtype for leaf in tree.leaves(values) if isinstance(leaf, Tensor) and (leaf.is_nested or leaf.dim() > 0)}
    return {dtype for dtype in found if dtype.is_floating_point} or found


def _join_dtypes(dtypes: set[Any]) -> str:
    return ", ".join(sorted(map(str, dtypes)))


def raise_explained(explained: Exception, error: Exception) -> NoReturn:
    """Raise an explained error with only its own cause; raise an unexplained one unchanged."""
    if explained is error:
        raise error
    for note in getattr(error, "__notes__", ()):  # its location in the layer
        explained.add_note(note)
    raise explained from explained.__cause__
