"""The contract: a layer is a frozen value with three pure functions.

    init(rng) -> params                          fresh parameters
    apply(params, x, rng=None) -> (y, cache)     forward
    vjp(params, cache, gy) -> (gparams, gx)      backward: gradient of y in, gradients of params and x out

Params, gradients and caches are trees (``funcnet.tree``); x and y are tensors, or tuples of tensors. Every layer obeys these
laws, which ``funcnet.testing.check_laws`` tests on any layer:

1.  Transpose. ``vjp`` is the exact transpose of the derivative J of ``apply``: ⟨gy, J v⟩ = ⟨vjp(gy), v⟩ for all v.
2.  Linear. ``vjp`` is linear in ``gy``, hence ``vjp(0) = 0``.
3.  Pure. Equal arguments, clones included, give equal bits; no argument or cache is written to; no other state is read.
4.  Structure. ``gparams`` mirrors ``params`` and ``gx`` mirrors ``x``, leaf by leaf, in shape, dtype and device. A leaf without a
    gradient (a running statistic, a label) has ``None``; the params among them on which y depends are listed in
    ``non_trainable``. No two elements of the leaves of ``init`` share memory.
5.  Rows. The output of a row does not depend on the rest of the batch, unless ``batch_dependent``; an empty batch works.
6.  Strides. Non-contiguous and expanded ``x`` and ``gy`` give the same numbers.
7.  Halves. ``grads`` and ``input_grad`` are the halves of ``vjp``, and ``layer(params, x)`` is the first half of ``apply``.
8.  Transforms. Everything works unchanged under ``torch.func.vmap``, ``torch.compile(fullgraph=True)`` and on the meta device.
9.  Value. ``eval(repr(layer)) == layer``, equal layers have equal hashes, and a layer pickles.
10. Reach. ``inference``, ``update_stats``, keys and ``map_layers`` reach every layer inside a layer, each with its own key.
11. Second order. ``torch.func`` differentiates every verb, in forward and in reverse mode. The derivative of ``apply`` agrees
    with ``vjp``, at kinks too; those of ``vjp``, ``grads`` and ``input_grad`` agree with central differences. Params in
    ``non_trainable``, and everything else whose gradient is ``None``, are held fixed.

The second derivative does not exist at some points: at the kinks of piecewise linear functions, and where the order of elements
changes in a maximum, a median or a top k (around these points it is 0); at vectors of length 0 and at equal elements, for norms,
distances and deviations; and at 0, for powers between 1 and 2. There ``torch.func`` gives a one-sided value, 0 or NaN. Indices,
labels, lengths, masks and keys are integers, and have no derivative at all.

A surrogate is a layer whose backward rule is not the derivative. It declares ``surrogate = True``, as ``scale_gradient`` and
``straight_through`` do; a net that contains one is a surrogate too. Law 1 compares the ``vjp`` of a surrogate with its
``declared_vjp``. In a net, law 1 replaces each surrogate by the linear map that its ``vjp`` applies to the gy that reaches it.
Law 2 demands of a surrogate only ``vjp(0) = 0``, since clipping is not linear. Law 11 demands nothing of its ``apply``, whose
true derivative ``torch.func`` finds; its ``vjp``, ``grads`` and ``input_grad`` must have the measured derivatives, as in every
layer.

Laws 1 and 2 are tested in float64. The others, wherever they compare numbers, are also tested in float32, bfloat16 and float16,
since each dtype can select another kernel. In these dtypes, y and all gradients are compared with the float64 results for the
same numbers. They may differ by 8 units in the last place of the largest number in their leaf, plus the error from rounding
params, x and gy (``funcnet.testing.precision``). Sums are accumulated in float32 at least, and rounded once.

The fields that ``inferred_sizes`` lists are sizes of x, and can be ``None`` at first. The layer then cannot run ``init`` or
``apply`` until ``infer_sizes(net, x)`` returns the net with the sizes of x.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import torch

from funcnet import annotations, random, tree
from funcnet.checks import missing_sizes, size_in
from funcnet.errors import value_error
from funcnet.guards import GUARDS, verbs
from funcnet.plans import Unchecked
from funcnet.random.keys import Key
from funcnet.traits import Traits

Params: TypeAlias = dict[Any, Any] | annotations.ParamsTuple
"""Parameters: a dict of tensors with ``torch.nn``'s names; for a combinator, a tuple or dict of its children's params."""

Grads: TypeAlias = annotations.GradsDict | annotations.GradsTuple
"""Gradients: a tree like the params, with ``None`` in place of each leaf that has no gradient."""

Cache: TypeAlias = Any
"""Exactly what ``apply`` keeps for ``vjp``. Treat it as opaque: it can share memory with x and y."""

Shape: TypeAlias = tuple[int, ...]
"""The shape of a tensor, or any tuple with one whole number for each axis."""

Size = annotations.Size

Rng: TypeAlias = Key | int | None
"""The source of randomness of one call: a key (``funcnet.key``), an int seed, or ``None`` if the layer needs no key."""


class Layer(Traits):
    """A frozen value with ``init``, ``apply`` and ``vjp``; subclass it with ``@funcnet.frozen`` to write a layer.

        y, cache    = layer.apply(params, x, rng)
        gparams, gx = layer.vjp(params, cache, gy)

    A subclass defines ``apply`` and ``vjp``, and ``init`` if it has params. Every other method has a default. The hooks
    ``param_shapes`` and ``complaint`` are optional: they turn an error inside ``apply`` into a message that says what does not
    fit.

    Raises:
        ValueError: At construction, if a field is invalid. From the verbs, if params belong to another layer, if x has the wrong
            axes, sizes or dtype, if gy does not have the shape, dtype and device of y, or if a stochastic layer gets no key. The
            message names the layer, the rule, the offending value and its place in the net.

    >>> import torch
    >>> from funcnet.value import frozen
    >>> @frozen
    ... class Power(Layer):
    ...     exponent: int = 2
    ...
    ...     def apply(self, params, x, rng=None):
    ...         return x**self.exponent, x
    ...
    ...     def vjp(self, params, cache, gy):
    ...         return params, self.exponent * gy * cache ** (self.exponent - 1)
    >>> layer = Power(3)
    >>> y, cache = layer.apply({}, torch.tensor([2.0]))
    >>> layer.vjp({}, cache, torch.ones(1))
    ({}, tensor([12.]))
    """

    __slots__ = ()

    @property
    def has_running_stats(self) -> bool:
        """Whether ``update_stats`` can change anything."""
        return type(self).update_stats is not Layer.update_stats

    @property
    def trainable(self) -> bool:
        """Whether params can have gradients: ``False`` for a layer without ``init``, and for the result of ``freeze``."""
        return getattr(type(self).init, "__wrapped__", type(self).init) is not Layer.init

    @property
    def invertible(self) -> bool:
        """Whether the layer has the optional verb ``inverse``."""
        return type(self).inverse is not Layer.inverse

    def init(self, rng: Key | int) -> Params:
        """Return fresh parameters.

        Args:
            rng: Key or int seed. Equal keys give equal parameters.

        Returns:
            A dict of tensors by name; ``{}`` for a layer without parameters.
        """
        return {}

    @abstractmethod
    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        """Return the output, and the cache that ``vjp`` needs.

        Args:
            params: Parameters, as ``init`` returns them.
            x: Input: a tensor, or a tuple of tensors.
            rng: Key or int seed, for stochastic layers.

        Returns:
            The pair (y, cache).
        """

    @abstractmethod
    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        """Return the gradients of the parameters and of the input.

        Args:
            params: The parameters that ``apply`` got.
            cache: The cache that ``apply`` returned.
            gy: Gradient of the output, like y in every leaf.

        Returns:
            The pair (gparams, gx): trees like params and x, with ``None`` for a leaf that has no gradient.
        """

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        """Return only the output, for prediction."""
        return self.apply(params, x, rng)[0]

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        """Return only the gradients of the parameters; override it if that saves work."""
        return self.vjp(params, cache, gy)[0]

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        """Return only the gradient of the input; override it if that saves work."""
        return self.vjp(params, cache, gy)[1]

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        """Return the x from which ``apply`` computes y with the same key: an optional verb.

        Raises:
            ValueError: If the layer has no inverse.
        """
        raise value_error(self, "the layer must have an inverse", "one without")

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        """Return x and the cache of ``apply``, computed from y; override it if one computation gives both.

        ``serial`` calls it in the backward pass through a run of invertible layers, of which it has kept only the last output.

        Args:
            params: Parameters, as for ``apply``.
            y: Output of ``apply``.
            rng: The key that ``apply`` got.

        Returns:
            The pair (x, cache).
        """
        x = self.inverse(params, y, rng)
        return x, self.apply(params, x, rng)[1]

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Return params with the batch statistics in ``cache`` folded into the running ones; other leaves stay the same."""
        return params

    def inference(self) -> "Layer":
        """Return the layer for evaluation, with the same params."""
        return self

    def in_precision(self, dtype: torch.dtype) -> "Layer":
        """Return the layer for tensors of ``dtype``: layers made by ``cast`` then compute at least as precisely as that dtype.

        The laws are tested on the returned layer: derivatives cannot be measured in float64 if a layer inside rounds to bfloat16.

        Args:
            dtype: A floating dtype.
        """
        return self

    def infer(self, x: Any) -> tuple["Layer", Any]:
        """Return the layer with its sizes inferred, and its output.

        Args:
            x: Input on the meta device.

        Returns:
            The pair (layer, y), with y on the meta device.
        """
        found = self._inferred(x)
        layer = self.replace(**found) if found else self
        return layer, output(layer, x)

    def _inferred(self, x: Any) -> dict[str, Any]:
        """Return the missing sizes, read from x."""
        return {name: size_in(self, x, name) for name in missing_sizes(self)}

    def param_shapes(self) -> dict[str, Shape] | None:
        """Return the shapes that params must have: a hook for error messages.

        Returns:
            A dict of shapes by name, nested names dotted; ``None`` for no rule. By default ``{}`` for a layer without ``init``,
            and ``None`` for others.
        """
        return {} if getattr(type(self).init, "__wrapped__", type(self).init) is Layer.init else None

    def unchecked(self, params: Params, cache: Cache) -> Unchecked | None:
        """Return ``apply``, ``vjp`` and ``grads`` without their checks, for a layer whose checks take as long as its kernels.

        ``serial`` calls them in eager mode, with arguments like those of the call that made ``cache``, which passed all checks:
        plain dense tensors in main memory, of the same shapes, strides and dtypes. The functions must call the same kernels as
        the verbs, and return the same bits.

        Args:
            params: The parameters of that call.
            cache: The cache that it returned.

        Returns:
            The functions. With ``None``, the default, ``serial`` calls the verbs; it also does so for a class that overrides a
            verb.
        """
        return None

    __rshift__: ClassVar[Callable[[Any, "Layer"], "Layer"]]
    """``f >> g`` is ``serial(f, g)``; defined in ``combinators.sequential``."""

    _repr_html_: ClassVar[Callable[[Any], str]]
    """What notebooks show; defined in ``outline``."""

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
    layer = layer.inference()  # in evaluation mode a batch can have a single row
    return layer(meta_params(layer), x, meta_key(layer))


def meta_params(layer: Layer) -> Params:
    """Return fresh params on the meta device, in the default dtype."""
    try:
        params = layer.init(random.key(0).to("meta"))
    except Exception:
        params = layer.init(0)  # a custom ``init`` may read the key
    made: Params = tree.cast(tree.to(params, "meta"), torch.get_default_dtype())
    return made


def meta_key(layer: Layer) -> Rng:
    """Return a key on the meta device; ``None`` for a layer that needs none."""
    return random.key(0).to("meta") if layer.stochastic else None
