"""``torch.nn.MultiheadAttention`` as ``MultiHeadAttention``, and calls of it in code.

The inputs of a converted module are (query, key, value) or (query, key, value, mask), for self-attention x or (x, mask).
Sequences have the axes of the module: (N, L, features) with ``batch_first``, else (L, N, features), or (L, features). The mask is
floating, or True where a query may see a key, and broadcasts to (N, heads, L, S). y is the output without the attention weights,
as with ``need_weights=False``.
"""

from typing import Any

from torch import nn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.conversion import made
from funcnet.interop.torch_nn.importing.masks import joint_mask
from funcnet.interop.torch_nn.importing.registry import Converted, call, layer
from funcnet.interop.torch_nn.importing.values import Node, UnsupportedError, require_value
from funcnet.layers.attention.multihead import MultiHeadAttention
from funcnet.wrapper import Wrapper


@layer(nn.MultiheadAttention)
def convert_multihead_attention(module: nn.MultiheadAttention) -> Converted:
    """Convert to ``MultiHeadAttention``, without ``need_weights``."""
    return made(
        MultiHeadAttention,
        module,
        embed_dim=module.embed_dim,
        num_heads=module.num_heads,
        dropout=float(module.dropout),
        bias=module.in_proj_bias is not None,
        add_bias_kv=module.bias_k is not None,
        add_zero_attn=module.add_zero_attn,
        kdim=None if module.kdim == module.embed_dim else module.kdim,
        vdim=None if module.vdim == module.embed_dim else module.vdim,
        batch_first=module.batch_first,
    )


@call(nn.MultiheadAttention)
def call_multihead_attention(
    module: nn.MultiheadAttention,
    net: Any,
    params: Params,
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: Any = None,
    need_weights: Any = True,
    attn_mask: Any = None,
    average_attn_weights: Any = True,
    is_causal: Any = False,
) -> Any:
    """Apply the layer to query, key, value and mask; return a node for (y, weights), or (a node for y, ``None``)."""
    xs = tuple([require_value(name, one) for name, one in (("query", query), ("key", key), ("value", value))])
    is_self = xs[0] == xs[1] == xs[2] and "in_proj_weight" in params
    mask = joint_mask(attn_mask, key_padding_mask, is_causal, module.num_heads)
    inputs = (*(xs[:1] if is_self else xs), *([] if mask is None else [mask]))
    if not isinstance(need_weights, bool) or not isinstance(average_attn_weights, bool):
        raise UnsupportedError("need_weights and average_attn_weights must be True or False in the code")
    if not need_weights:
        return Node(net, inputs, params), None
    return Node(with_options(net, need_weights=True, average_attn_weights=average_attn_weights), inputs, params, (None, None))


def with_options(net: Any, **options: bool) -> Layer:
    """Return an attention with other options, also within wrappers such as ``freeze``."""
    return net.replace(layer=with_options(net.layer, **options)) if isinstance(net, Wrapper) else net.replace(**options)
