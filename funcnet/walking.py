"""Walking: the layers of a net by their paths, and nets with some layers replaced.

A path is the dotted path of the layer's params: ``"encoder.0"`` if those are ``"encoder.0.weight"``. The net itself has the path
``""``. A wrapper adds no component, so it shares its path with the layer inside; the path then means the outermost layer.

>>> from funcnet.combinators.sequential import serial
>>> from funcnet.layers.linear.linear import Linear
>>> net = serial(Linear(2, 3), serial(Linear(3, 3), Linear(3, 1)))
>>> [path for path, _ in walk(net)]
['', '0', '1', '1.0', '1.1']
>>> at(net, "1.1")
Linear(in_features=3, out_features=1)
"""

from collections.abc import Callable, Iterator
from typing import Any

from funcnet.combinator import Children, Combinator
from funcnet.contract import Layer
from funcnet.errors import PathError, describe, value_error
from funcnet.flattening import join
from funcnet.naming import listed


def children_of(layer: Layer) -> Children:
    """Return the layers that a layer holds, by name; none unless it is a combinator."""
    return layer.children() if isinstance(layer, Combinator) else {}


def walk(net: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield the path and the layer for the net and every layer in it, outermost first.

    Args:
        net: The net.
        path: The path of the net itself.

    Raises:
        ValueError: If ``net`` is not a layer, or ``path`` is not a string.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> [*walk(serial(hidden=Tanh()))]
    [('', serial(hidden=Tanh())), ('hidden', Tanh())]
    """
    require_layer("walk", net)
    if not isinstance(path, str):
        raise value_error("walk", "path must be a string", describe(path))
    return _walk(net, path)


def _walk(net: Layer, path: str) -> Iterator[tuple[str, Layer]]:
    yield path, net
    for name, child in children_of(net).items():
        yield from _walk(child, _inside(path, name))


def at(net: Layer, path: str) -> Layer:
    """Return the layer at a path; if several layers have it, the outermost.

    Args:
        net: The net.
        path: The dotted path of the layer.

    Raises:
        LookupError: If the path does not exist; the message names those that do.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> at(serial(hidden=serial(Tanh())), "hidden.0")
    Tanh()
    """
    require_layer("at", net)
    for one, layer in walk(net):
        if isinstance(path, str) and one == path:
            return layer
    raise _no_such_path("at", net, path)


def replace(net: Layer, path: str, layer: Layer) -> Layer:
    """Return the net with another layer at a path; if several layers have it, the outermost is replaced.

    The params do not change: if the new layer needs others, replace them too, with ``tree.replace``.

    Args:
        net: The net.
        path: The dotted path of the layer to replace.
        layer: The new layer.

    Raises:
        LookupError: If the path does not exist; the message names those that do.
        ValueError: If ``net`` or ``layer`` is not a layer.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.rectifiers import ReLU
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> replace(serial(Tanh(), serial(Tanh())), "1.0", ReLU())
    serial(Tanh(), serial(ReLU()))
    """
    require_layer("replace", layer)
    require_layer("replace", net)
    found = _replaced(net, "", path, layer) if isinstance(path, str) else None
    if found is None:
        raise _no_such_path("replace", net, path)
    return found


def _replaced(net: Layer, here: str, path: str, layer: Layer) -> Layer | None:
    if here == path:
        return layer
    for name, child in children_of(net).items():
        found = _replaced(child, _inside(here, name), path, layer) if _leads_to(path, here, name) else None
        if found is not None:
            return _with(net, {**children_of(net), name: found})
    return None


def _leads_to(path: str, here: str, name: str) -> bool:
    inside = _inside(here, name)
    return not inside or path == inside or path.startswith(inside + ".")


def map_layers(f: Callable[..., Layer], net: Layer, *, with_path: bool = False) -> Layer:
    """Rewrite a net bottom-up: replace every layer with ``f(layer)``, after its inner layers were rewritten.

    Args:
        f: A function of the layer, or with ``with_path`` of the path and the layer, that returns a layer.
        net: The net.
        with_path: Whether ``f`` gets the path too.

    Raises:
        ValueError: If ``f`` returns anything but a layer.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.noise.dropout import Dropout
    >>> net = serial(serial(Dropout(0.5)), Dropout(0.5))
    >>> map_layers(lambda layer: layer.replace(p=0.1) if isinstance(layer, Dropout) else layer, net)
    serial(serial(Dropout(p=0.1)), Dropout(p=0.1))
    """
    require_layer("map_layers", net)
    if not callable(f):
        raise value_error("map_layers", "f must be a function that returns a layer", f)
    return _mapped(f if with_path else lambda _, layer: f(layer), net, "")


def _mapped(f: Callable[[str, Layer], Layer], net: Layer, path: str) -> Layer:
    children = children_of(net)
    made = {name: _mapped(f, child, _inside(path, name)) for name, child in children.items()}
    return require_layer("map_layers", f(path, _with(net, made)))


def _with(net: Any, children: Children) -> Layer:
    """Return a net with other children; the net itself if they are the same."""
    if all(child is children[name] for name, child in children_of(net).items()):
        return net  # type: ignore[no-any-return]
    made: Layer = net.with_children(children)
    return made


def _inside(path: str, name: str) -> str:
    return join(path, name) if name else path


def require_layer(who: str, layer: Any) -> Layer:
    """Return a layer; raise ``ValueError`` for anything else."""
    if not isinstance(layer, Layer):
        raise value_error(who, "a layer is required (a value with init, apply and vjp)", layer)
    return layer


def _no_such_path(who: str, net: Layer, path: str) -> PathError:
    paths = dict.fromkeys(one for one, _ in walk(net) if one)
    return PathError(f"{who}: no layer at {path!r}; there are {listed(paths)}")
