"""Writes in a traced graph: the inputs that operations write to, directly or through views."""

import operator
from collections.abc import Iterator
from typing import Any

from torch.export import ExportedProgram


def written_inputs(program: ExportedProgram) -> set[str]:
    """Return the names of the inputs, including constants, that a program's graph writes to."""
    origins: dict[Any, Any] = {}
    written: set[str] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            origins[node] = node
        elif node.op == "call_function":
            written |= {origins[one].name for one in _given(node, writes=True) if one in origins}
            shared = [origins[one] for one in _given(node, writes=False) if one in origins]
            if shared:
                origins[node] = shared[0]
    return written


def _given(node: Any, *, writes: bool) -> Iterator[Any]:
    """Yield the nodes whose memory an operation writes to, or returns if ``writes`` is ``False``."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        yield from node.args[:1] if node.target is operator.getitem and not writes else ()
        return
    for i, one in enumerate(schema.arguments):
        value = node.args[i] if i < len(node.args) else node.kwargs.get(one.name)
        if one.alias_info is not None and (one.alias_info.is_write or not writes):
            yield from value if isinstance(value, (tuple, list)) else [] if value is None else [value]
