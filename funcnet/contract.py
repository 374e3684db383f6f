"""The contract: a layer is a frozen value with three pure functions.

    init(rng) -> params                          fresh parameters
    apply(params, x, rng=None) -> (y, cache)     forward
    vjp(params, cache, gy) -> (gparams, gx)      backward: gy in, the gradients of params and of x out

Params, gradients and caches are trees (``funcnet.tree``); x and y are tensors, or tuples of them. ``funcnet.testing.check_laws``
tries the laws on any layer:

1.  Transpose. ``vjp`` is the exact transpose of the derivative J of ``apply``: ⟨gy, J v⟩ = ⟨vjp(gy), v⟩ for all v.
2.  Linear. ``vjp`` is linear in ``gy``, so ``vjp(0) = 0``.
3.  Pure. Equal arguments give equal bits, clones too; no argument and no cache is written to; no other state is read.
4.  Structure. ``gparams`` mirrors ``params`` and ``gx`` mirrors ``x``, leaf by leaf, in shape, dtype and device; a leaf without a
    gradient (a running statistic, a label) has ``None``; those on which y depends are named in ``non_trainable``. No two elements
    of the leaves of ``init`` share memory.
5.  Rows. The output of a row does not depend on the rest of the batch, unless ``batch_dependent``; an empty batch works.
6.  Strides. Non-contiguous and expanded ``x`` and ``gy`` give the same numbers.
7.  Halves. ``grads`` and ``input_grad`` are the halves of ``vjp``, and ``layer(params, x)`` the first half of ``apply``.
8.  Transforms. All of it works unchanged under ``torch.func.vmap``, ``torch.compile(fullgraph=True)`` and on the meta device.
9.  Value. ``eval(repr(layer)) == layer``, equal layers hash alike, and a layer pickles.
10. Reach. ``inference``, ``update_stats``, keys and ``map_layers`` reach every layer within a layer, each with its own key.
11. Second order. ``torch.func`` differentiates every verb, in forward and in reverse mode. The derivative of ``apply`` is what
    ``vjp`` gives, at kinks too; those of ``vjp``, ``grads`` and ``input_grad`` agree with central differences. Params in
    ``non_trainable``, and all else whose gradient is ``None``, are held fixed.

There is no second derivative where the first one jumps or has no slope: at the kinks of piecewise linear functions and between
the ranks of a maximum, a median or a top k, beside which it is 0; at vectors of length 0 and at equal elements, for norms,
distances and deviations; at 0 for powers between 1 and 2. What ``torch.func`` then gives is a one-sided value, 0 or NaN.
Indices, labels, lengths, masks and keys are integers, and have no derivative at all.

A layer with another rule backward than the derivative says ``surrogate = True``, as ``scale_gradient`` and ``straight_through``
do; a net that holds one is a surrogate too. Law 1 compares the ``vjp`` of such a layer with its ``declared_vjp``, and that of a
net with the derivative of the net in which each surrogate is the linear map that its ``vjp`` gives at the gy that reaches it.
Law 2 asks of a surrogate only ``vjp(0) = 0``, as clipping is not linear. Law 11 asks of its ``apply`` nothing, since
``torch.func`` finds the derivative there, and of its ``vjp``, ``grads`` and ``input_grad`` the measured derivatives, as of
every layer.

Laws 1 and 2 are tried in float64, the others in float32, bfloat16 and float16 too, wherever they compare numbers: a layer may
take another kernel in each. There y and all gradients are also compared with those that float64 gives of the same numbers. They
may be 8 units in the last place off, of the largest number in their leaf, and as far as the rounding of params, x and gy moves
them, ``funcnet.testing.precision``. Sums are accumulated in float32 at least, and rounded once.

A size that describes x may be ``None`` at first, in the fields that ``inferred_sizes`` names. Such a layer has neither ``init``
nor ``apply`` before ``infer_sizes(net, x)`` has rewritten the net with the sizes of x.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import torch

from funcnet import annotations, random, tree
from funcnet.checks import missing_sizes, size_in, sizes_complaint
from funcnet.errors import value_error
from funcnet.guards import GUARDS, verbs
from funcnet.plans import Unchecked
from funcnet.random.keys import Key
from funcnet.value import Value

Params: TypeAlias = annotations.Params
Grads: TypeAlias = annotations.Grads
Cache: TypeAlias = annotations.Cache
Shape: TypeAlias = annotations.Shape
Size = annotations.Size
"""The types of params, gradients, caches, shapes and sizes; see ``annotations``."""

Rng: TypeAlias = Key | int | None
"""A key, an int seed, or ``None`` where no key is needed."""


class Layer(Value):
    """A frozen value with ``init``, ``apply`` and ``vjp``; subclass it with ``@funcnet.frozen`` to make your own layer.

    A subclass defines ``apply`` and ``vjp``, and ``init`` if it has params. Every other method has a default. The hooks
    ``param_shapes`` and ``complaint`` are optional: they turn an error in ``apply`` into a sentence that says what does not fit.
    """

    __slots__ = ()

    non_trainable: ClassVar[tuple[str, ...]] = ()
    """Names in params whose gradient is ``None`` although y depends on them, such as running statistics; dotted where nested."""

    undecayed: ClassVar[tuple[str, ...]] = ()
    """Names in params that weight decay leaves alone by default, as the scale of a norm; biases are known by their names."""

    ensemble_mode: ClassVar[str] = "vmap"
    """How ``ensemble`` runs its members: ``"vmap"``; ``"loop"`` or ``"loop if large"``, where vmap knows only slow kernels; or
    ``"elementwise"``, for a layer without params that treats all elements alike."""

    weight_output_axis: ClassVar[int | None] = None
    """The axis of ``weight`` that numbers the channels of y, in a layer linear in x; ``None`` in other layers."""

    channelwise_affine: ClassVar[bool] = False
    """Whether each channel of y is that of x scaled and shifted by its running statistics, ``weight`` and ``bias``."""

    halves_share_work: ClassVar[bool] = False
    """Whether ``grads`` and ``input_grad`` both repeat much of ``vjp``, as in attention: pipelines then call ``vjp``."""

    @property
    def stochastic(self) -> bool:
        """Whether ``apply`` needs a key, and raises without one. Other layers ignore a key."""
        return False

    @property
    def batch_dependent(self) -> bool:
        """Whether a row of the output depends on other rows of the batch, as with batch statistics."""
        return False

    @property
    def has_running_stats(self) -> bool:
        """Whether ``update_stats`` can change anything."""
        return type(self).update_stats is not Layer.update_stats

    @property
    def output_dtype(self) -> torch.dtype | None:
        """The dtype of a floating y, in a layer that changes it, as ``Cast``; ``None`` where it is that of params and x."""
        return None

    @property
    def trainable(self) -> bool:
        """Whether params may have gradients: ``False`` for a layer without ``init``, and for what ``freeze`` makes."""
        return getattr(type(self).init, "__wrapped__", type(self).init) is not Layer.init

    @property
    def invertible(self) -> bool:
        """Whether the layer has the optional verb ``inverse``."""
        return type(self).inverse is not Layer.inverse

    @property
    def surrogate(self) -> bool:
        """Whether ``vjp`` follows another rule than the derivative of ``apply``, as in straight-through estimators."""
        return False

    def declared_vjp(self, params: Params, x: Any, gy: Any, rng: Rng = None) -> tuple[Grads, Any] | None:
        """Return the gradients by the rule of a surrogate, as a formula of x, with which law 1 compares ``vjp``.

        ``None``, the default, declares no formula: law 1 then takes what ``vjp`` gives.
        """
        return None

    @property
    def inferred_sizes(self) -> Mapping[str, int | tuple[int, ...]]:
        """The fields that may be ``None`` until ``infer_sizes``, and the axis or axes of x whose size each is.

        If x has several tensors, the first counts.
        """
        return {}

    def init(self, rng: Key | int) -> Params:
        """Make fresh parameters from a key or an int seed; ``{}`` for a layer without any."""
        return {}

    @abstractmethod
    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        """Return the output, and what ``vjp`` will need."""

    @abstractmethod
    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        """Return the gradients of the parameters and of the input, from the gradient of the output."""

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        """Return only the output, for prediction."""
        return self.apply(params, x, rng)[0]

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        """Return the parameters' half of ``vjp``; override it if that saves work."""
        return self.vjp(params, cache, gy)[0]

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        """Return the input's half of ``vjp``; override it if that saves work."""
        return self.vjp(params, cache, gy)[1]

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        """Return the x from which ``apply`` makes y with the same key: an optional verb."""
        raise value_error(self, "the layer must have an inverse", "one without")

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        """Return x and the cache of ``apply``, from y; override it if one computation gives both.

        ``serial`` calls it on the way back through several invertible layers, of which it keeps the last output only.
        """
        x = self.inverse(params, y, rng)
        return x, self.apply(params, x, rng)[1]

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Return params with the batch statistics in ``cache`` folded into the running ones, and all other leaves as they are."""
        return params

    def inference(self) -> "Layer":
        """Return the layer for evaluation, with the same params."""
        return self

    def in_precision(self, dtype: torch.dtype) -> "Layer":
        """Return the layer for numbers of ``dtype``: what ``cast`` makes then computes no less precisely than in it.

        The laws are tried on that: slopes cannot be measured in float64 where a layer within rounds to bfloat16.
        """
        return self

    def infer(self, x: Any) -> tuple["Layer", Any]:
        """Return the layer with its sizes inferred, and its output, for an x on the meta device."""
        found = self._inferred(x)
        layer = self.replace(**found) if found else self
        return layer, output(layer, x)

    def _inferred(self, x: Any) -> dict[str, Any]:
        """Return the missing sizes, read from x."""
        return {name: size_in(self, x, name) for name in missing_sizes(self)}

    def param_shapes(self) -> dict[str, Shape] | None:
        """Return the names and shapes that ``params`` must have, nested names dotted; ``None`` where there is no rule.

        By default a layer without an ``init`` has no params, and of others nothing is known.
        """
        return {} if getattr(type(self).init, "__wrapped__", type(self).init) is Layer.init else None

    def unchecked(self, params: Params, cache: Cache) -> Unchecked | None:
        """Return ``apply``, ``vjp`` and ``grads`` without their checks, for a layer whose checks take as long as its kernels.

        ``serial`` calls them in eager mode, with arguments like those of the call that made ``cache``, which passed all checks:
        plain dense tensors in main memory, of the same shapes, strides and dtypes. They must call the same kernels as the verbs,
        for the same bits. By default ``None``, as in a class that overrides a verb: then ``serial`` calls the verbs.
        """
        return None

    def complaint(self, x: Any) -> str | None:
        """Return the rule that ``x`` breaks; ``None`` where it breaks none. It is asked only after ``apply`` has failed.

        By default the axes in ``inferred_sizes`` must have their sizes, in a floating tensor.
        """
        return sizes_complaint(self, x) if self.inferred_sizes else None

    __rshift__: ClassVar[Callable[[Any, "Layer"], "Layer"]]
    """``f >> g`` is ``serial(f, g)``, which ``combinators.sequential`` defines."""

    @classmethod
    def _when_frozen(cls) -> None:
        """Wrap the verbs so that they explain their errors: the only ``try`` for all layers.

        A class that overrides ``apply`` may compute something else, and must declare again that it is affine.
        """
        if "apply" in vars(cls):
            for name in ("weight_output_axis", "channelwise_affine"):
                setattr(cls, name, vars(cls).get(name, getattr(Layer, name)))
        for name, verb in verbs(cls).items():
            if not hasattr(verb, "guards") and verb is not getattr(Layer, name):
                setattr(cls, name, GUARDS[name](verb))


def output(layer: Layer, x: Any) -> Any:
    """Return a layer's output for an x on the meta device; nothing is computed."""
    layer = layer.inference()  # in evaluation one row is a batch too
    return layer(meta_params(layer), x, meta_key(layer))


def meta_params(layer: Layer) -> Params:
    """Return fresh params on the meta device, in the default dtype."""
    try:
        params = layer.init(random.key(0).to("meta"))
    except Exception:
        params = layer.init(0)  # an ``init`` may read the key
    made: Params = tree.cast(tree.to(params, "meta"), torch.get_default_dtype())
    return made


def meta_key(layer: Layer) -> Rng:
    """Return a key on the meta device; ``None`` for a layer that needs none."""
    return random.key(0).to("meta") if layer.stochastic else None
