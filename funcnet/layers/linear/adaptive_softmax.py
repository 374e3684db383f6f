"""AdaptiveLogSoftmaxWithLoss: a softmax over many classes in clusters, which saves work on rare classes.

h (N, in_features), t (N,) the labels, o (N,) their log-probabilities, v () the loss. The first softmax, number 0, has the
shortlist and one entry for each cluster.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers, random, tree
from funcnet.checks import Misfit, check_gys, floating_complaint, require_kind
from funcnet.contract import Cache, Grads, Layer, Params, Rng, Shape
from funcnet.errors import as_tuple, flag, number, size, value_error, whole_numbers
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import linear
from funcnet.kernels.limits import log_softmax
from funcnet.kernels.losses import log_softmax_backward
from funcnet.kernels.tracing import can_look_at
from funcnet.precision import in_single, rounded
from funcnet.random.keys import Key
from funcnet.value import frozen


class _Softmax(NamedTuple):
    """The results of one softmax.

    ``rows`` are the rows it was computed for, ``counts`` marks those whose label it covers (``None``: all), ``inner`` is h uᵀ,
    ``logp`` is log p, and ``at`` contains the positions of the labels.
    """

    rows: Tensor
    counts: Tensor | None
    inner: Tensor | None
    logp: Tensor
    at: Tensor

    def picked(self) -> Tensor:
        """Return log p at the labels; 0 in rows that do not count."""
        found = self.logp.gather(1, self.at).squeeze(1)
        return found if self.counts is None else torch.where(self.counts, found, 0.0)

    def pull_back(self, g: Tensor) -> Tensor:
        """Return gz."""
        g = g if self.counts is None else torch.where(self.counts, g, 0.0)
        gp = self.logp.new_zeros(self.logp.shape).scatter_add(1, self.at, g.unsqueeze(1))
        return log_softmax_backward(gp, self.logp, 1, self.logp.dtype)


@frozen
class AdaptiveLogSoftmaxWithLoss(Layer):
    """Log-probabilities of labels among many classes, and their loss.

        y    = (o, v)         o = log p(t), v = -Σ o / N;  p(t) = p₀(t), or p₀(cluster i) p_i(t) in cluster i
        p₀   = softmax(h w₀ᵀ + b₀)                p_i = softmax(h u_iᵀ w_iᵀ)
        gz   = g ⊙ (one-hot - p)                  g = go - gv / N, for the rows of each softmax
        gh   = gz₀ w₀ + Σ gz_i w_i u_i            gw = gzᵀ (its input)        gx = (gh, None)

    Number the classes by decreasing frequency. The first softmax covers the first classes, the shortlist. The others are in
    clusters. Each cluster has its own softmax on fewer features, which is computed only for the rows whose label is in the
    cluster. (Compiled code and ``vmap`` compute it for all rows.)

    The labels are part of x, and the loss is part of y; the gradient of the loss is 1:

        (output, value), cache = net.apply(params, (h, labels))
        grads = net.grads(params, cache, (None, torch.ones(())))

    Args:
        in_features: Size of the last axis of h.
        n_classes: Number of classes.
        cutoffs: The first class of each cluster, increasing; ``(100, 1000)`` makes a shortlist of 100 and two clusters.
        div_value: Factor by which the number of features shrinks from cluster to cluster.
        head_bias: Whether the first softmax has a learned offset for each of its entries.
        initializer: Initializer of all weights, by name or value; ``"torch"`` initializes them like torch.nn.

    Shape:
        x (h, labels): (..., in_features) and integers (...) → y (output, value): (...) and ().

    Params:
        head.weight: (shortlist + clusters, in_features), w₀, Xavier normal.
        head.bias: (shortlist + clusters,), b₀, zeros; absent with ``head_bias=False``.
        tail.i.0.weight: (features of cluster i, in_features), u_i, Xavier normal.
        tail.i.1.weight: (classes of cluster i, features of cluster i), w_i, Xavier normal.

    Cache:
        For each softmax its rows, inputs and log p; y, not copied.

    Raises:
        ValueError: If the cutoffs are not increasing or exceed the classes, if a cluster would have no features, or, on the CPU,
            if a label is out of range.

    References:
        Grave et al. 2017, "Efficient softmax approximation for GPUs"; ``torch.nn.AdaptiveLogSoftmaxWithLoss``.

    >>> layer = AdaptiveLogSoftmaxWithLoss(16, 100, (10, 50))
    >>> output, value = layer(layer.init(0), (torch.ones(3, 16), torch.tensor([2, 30, 99])))
    >>> output.shape, value.shape
    (torch.Size([3]), torch.Size([]))
    """

    in_features: int = field(validator=size)
    n_classes: int = field(validator=size)
    cutoffs: tuple[int, ...] | Any = field(converter=as_tuple, validator=whole_numbers(1))
    div_value: float = field(default=4.0, validator=number(1))
    head_bias: bool = field(default=False, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    def __attrs_post_init__(self) -> None:
        ends = (*self.cutoffs, self.n_classes)
        if any(a >= b for a, b in pairwise(ends)):
            rule = f"cutoffs must be increasing, from 1 to {self.n_classes - 1}"
            raise value_error(type(self).__name__, rule, repr(self.cutoffs))
        if min(shape[0] for shape in self.param_shapes().values()) < 1:
            rule = f"in_features={self.in_features} must leave each cluster a feature after division by div_value"
            raise value_error(type(self).__name__, rule, f"div_value={self.div_value}")

    @property
    def batch_dependent(self) -> bool:
        return True

    def param_shapes(self) -> dict[str, Shape]:
        head = self.cutoffs[0] + len(self.cutoffs)
        shapes: dict[str, Shape] = {"head.weight": (head, self.in_features)}
        if self.head_bias:
            shapes["head.bias"] = (head,)
        for i, (low, high) in enumerate(self._clusters()):
            features = int(self.in_features // self.div_value ** (i + 1))
            shapes[f"tail.{i}.0.weight"] = (features, self.in_features)
            shapes[f"tail.{i}.1.weight"] = (high - low, features)
        return shapes

    def _clusters(self) -> Iterator[tuple[int, int]]:
        """Yield the first class of each cluster, and the first class after it."""
        yield from zip(self.cutoffs, (*self.cutoffs[1:], self.n_classes), strict=True)

    def init(self, rng: Key | int) -> Params:
        shapes = self.param_shapes()
        drawn: dict[str, Tensor] = {}
        for name in [name for name in shapes if name.endswith("weight")]:
            own = {one: shapes[f"{name[:-6]}{one}"] for one in ("weight", "bias") if f"{name[:-6]}{one}" in shapes}
            made = initializers.weight_and_bias(random.fold_in(rng, name), own, self.initializer)
            drawn |= {f"{name[:-6]}{one}": leaf for one, leaf in made.items()}
        return _nested(drawn)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[tuple[Tensor, Tensor], Cache]:
        h, t = self._rows(params, x)
        w = {name: in_single(leaf) for name, leaf in tree.names(params).items()}
        at = t
        for i, (low, _) in enumerate(self._clusters()):
            at = torch.where(t >= low, self.cutoffs[0] + i, at)
        every = torch.arange(t.shape[0], device=t.device)
        head = _softmax(linear.linear(h, w["head.weight"], w.get("head.bias")), at, None, every)
        kept, output = [head], head.picked()
        for i, (low, high) in enumerate(self._clusters()):
            rows, counts = _within(t, low, high)
            inner = linear.linear(h[rows], w[f"tail.{i}.0.weight"])
            places = (t[rows] - low).clamp(0, high - low - 1)
            kept.append(_softmax(linear.linear(inner, w[f"tail.{i}.1.weight"]), places, counts, rows, inner))
            output = output.index_add(0, rows, kept[-1].picked())
        y = rounded(output, x[0]).reshape(x[1].shape), rounded(-output.mean(), x[0])
        return y, (h, tuple(kept), y)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, tuple[Tensor, None]]:
        h, (head, *clusters), y = cache
        of_output, of_value = check_gys(self, gy, y)
        g = in_single(of_output).reshape(-1) - in_single(of_value) / h.shape[0]
        w = {name: in_single(leaf) for name, leaf in tree.names(params).items()}
        gz = head.pull_back(g)
        gh, found = linear.matmul_input_grad(gz, w["head.weight"]), {"head.weight": linear.matmul_weight_grad(gz, h)}
        if self.head_bias:
            found["head.bias"] = gz.sum(0)
        for i, one in enumerate(clusters):
            outer, inner = f"tail.{i}.1.weight", f"tail.{i}.0.weight"
            gz = one.pull_back(g[one.rows])
            gi = linear.matmul_input_grad(gz, w[outer])
            found[inner], found[outer] = linear.matmul_weight_grad(gi, h[one.rows]), linear.matmul_weight_grad(gz, one.inner)
            gh = gh.index_add(0, one.rows, linear.matmul_input_grad(gi, w[inner]))
        gparams = {name: rounded(found[name], y[1]) for name in self.param_shapes()}
        return _nested(gparams), (rounded(gh, y[1]).reshape((*y[0].shape, self.in_features)), None)

    def log_prob(self, params: Params, h: Tensor) -> Tensor:
        """Return the log-probabilities of all classes.

        Args:
            params: Parameters of the layer.
            h: Features, (..., in_features).

        Returns:
            A tensor (..., n_classes).
        """
        w = {name: in_single(leaf) for name, leaf in tree.names(params).items()}
        wide = in_single(h)
        head = log_softmax(linear.linear(wide, w["head.weight"], w.get("head.bias")), -1)
        parts = [head[..., : self.cutoffs[0]]]
        for i in range(len(self.cutoffs)):
            z = linear.linear(linear.linear(wide, w[f"tail.{i}.0.weight"]), w[f"tail.{i}.1.weight"])
            parts.append(log_softmax(z, -1) + head[..., self.cutoffs[0] + i, None])
        return rounded(torch.cat(parts, -1), h)

    def predict(self, params: Params, h: Tensor) -> Tensor:
        """Return the most likely class of each row.

        A cluster is computed only for the rows in which it is more likely than every class of the shortlist.

        Args:
            params: Parameters of the layer.
            h: Features, (..., in_features).

        Returns:
            An integer tensor (...).
        """
        w = {name: in_single(leaf) for name, leaf in tree.names(params["head"]).items()}
        best = linear.linear(in_single(h), w["weight"], w.get("bias")).argmax(-1)
        if not can_look_at(best):
            return torch.where(best < self.cutoffs[0], best, self.log_prob(params, h).argmax(-1))
        left = best >= self.cutoffs[0]
        return best.masked_scatter(left, self.log_prob(params, h[left]).argmax(-1)) if left.any() else best

    def complaint(self, x: Any) -> str | None:
        rule = f"x must be (h, labels): (..., in_features={self.in_features}), floating, and integers (...)"
        if not isinstance(x, tuple) or len(x) != 2 or not all([isinstance(one, Tensor) for one in x]):  # noqa: C419
            return rule
        h, t = x
        whole = not (t.is_floating_point() or t.is_complex() or t.dtype is torch.bool)
        right = not floating_complaint(h) and whole and h.shape[-1:] == (self.in_features,) and h.shape[:-1] == t.shape
        return None if right else rule

    def _rows(self, params: Params, x: Any) -> tuple[Tensor, Tensor]:
        """Return h as (N, in_features), in float32 at least, and the labels as (N,)."""
        names = tree.names(params)
        if self.complaint(x) or {name: leaf.shape for name, leaf in names.items()} != self.param_shapes():
            raise Misfit
        require_kind(self, names, x[0])
        t = x[1].reshape(-1).long()
        if can_look_at(t) and t.numel() and (t.min() < 0 or t.max() >= self.n_classes):
            rule = f"every label must be from 0 to {self.n_classes - 1}"
            raise value_error(self, rule, f"{int(t.min())} to {int(t.max())}")
        return in_single(x[0]).reshape(-1, self.in_features), t


def _softmax(z: Tensor, at: Tensor, counts: Tensor | None, rows: Tensor, inner: Tensor | None = None) -> _Softmax:
    return _Softmax(rows, counts, inner, log_softmax(z, 1), at.unsqueeze(1))


def _within(t: Tensor, low: int, high: int) -> tuple[Tensor, Tensor | None]:
    """Return the rows whose label is in a cluster; if labels cannot be read, all rows and a mask."""
    is_within = (t >= low) & (t < high)
    if can_look_at(t):
        return is_within.nonzero().squeeze(1), None
    return torch.arange(t.shape[0], device=t.device), is_within


def _nested(leaves: dict[str, Tensor]) -> dict[str, Any]:
    """Turn dotted names into dicts within dicts."""
    nested: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *path, last = name.split(".")
        here = nested
        for one in path:
            here = here.setdefault(one, {})
        here[last] = leaf
    return nested
