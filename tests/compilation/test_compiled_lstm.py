"""Compiled LSTMs use oneDNN's kernel for whole sequences, like eager ones, with the same gradients."""

from functools import partial

import pytest
import torch

import funcnet as fn
from funcnet.compilation import inductor
from funcnet.kernels import forced
from funcnet.kernels.private_names import HAS_ONEDNN
from funcnet.kernels.recurrent.workspaces import kept_of

pytestmark = pytest.mark.compiled

X = fn.random.normal(1, (5, 3, 4))


@fn.frozen
class Gradients(fn.Value):
    """Computes the outputs and the gradients of an LSTM with two layers."""

    net: fn.Layer

    def __call__(self, params, x, gy):
        (y, state), cache = self.net.apply(params, x)
        grads, gx = self.net.vjp(params, cache, (gy, state))
        return y, state, grads, gx


@pytest.fixture
def graphs(monkeypatch):
    """Return a list to which the operators of every graph that is compiled are added."""
    found, kernel_of = [], inductor.kernel_of

    def recorded(graph, examples):
        found.extend(str(node.target) for node in graph.graph.nodes)
        return kernel_of(graph, examples)

    monkeypatch.setattr(inductor, "kernel_of", recorded)
    return found


@pytest.mark.parametrize("option", ["onednn", "buffers"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_compiled_lstm_has_the_gradients_of_the_eager_one(option, bias, graphs):
    """The operators are in the graph, forward and backward, only if oneDNN is chosen."""
    net = fn.LSTM(4, 6, bias=bias)
    params, gy = net.init(0), fn.random.normal(2, (5, 3, 6))
    with forced("LSTM", option):
        step = Gradients(net)
        torch.testing.assert_close(fn.compile(step)(params, X, gy), step(params, X, gy), rtol=1e-4, atol=1e-6)
    used = any("funcnet.lstm" in name for name in graphs), any("funcnet.lstm_back" in name for name in graphs)
    assert used == ((HAS_ONEDNN and option == "onednn",) * 2)


def test_the_operators_give_the_shapes_that_they_promise():
    """This covers training, prediction and the backward pass, which do not write to their arguments.

    Values are not compared: oneDNN does not write to gaps in its workspace.
    """
    check = partial(torch.library.opcheck, test_utils=("test_schema", "test_faketensor"))
    w = [fn.random.normal(i, size) for i, size in enumerate(((24, 4), (24, 6), (24,), (24,)))]
    state = [fn.random.normal(7, (1, 3, 6)), fn.random.normal(8, (1, 3, 6))]
    y, h, c, workspace = torch.ops.aten.mkldnn_rnn_layer(X, *w, *state, False, [], 2, 6, 1, True, False, False, True)
    kept_size = kept_of(workspace, X, w[1]).numel()
    for size in (kept_size, 0):
        check(torch.ops.funcnet.lstm.default, (X, *w, *state, size))
    ends = [torch.ones_like(one) for one in (y, h, c)]
    kept = torch.ops.funcnet.lstm(X, *w, *state, kept_size)
    check(torch.ops.funcnet.lstm_back.default, (X, *w, *state, *kept[:3], *ends, kept[3]))
