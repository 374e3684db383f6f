"""RNN, LSTM and GRU: cells along a sequence, with the arguments, params and shapes of torch.nn.

    hₜ = cell(xₜ, hₜ₋₁),   yₜ = hₜ,  or  V hₜ with a projection        ghₜ = gyₜ + what the cell sends back from t + 1
    gxₜ = Wᵀ gpₜ,   gW = Σₜ gpₜ xₜᵀ,   gU = Σₜ gsₜ hₜ₋₁ᵀ,   gV = Σₜ gyₜ hₜᵀ

with the cell's own formulas, p and s from ``layers.recurrent``; x (T, N, input_size) and y (T, N, hidden_size).
"""

from attrs import field

from funcnet.errors import flag, one_of, value_error, whole
from funcnet.layers.recurrent.sequences import DROPOUT, Recurrent
from funcnet.value import frozen


@frozen
class RNN(Recurrent):
    """Elman network over a sequence, with the arguments, params and shapes of ``torch.nn.RNN``.

    x is a sequence (T, N, input_size), (N, T, ...) with ``batch_first`` or (T, ...) without a batch; (sequence, state); or
    (sequence, state, lengths) with whole numbers (N,): steps from a row's length on change no state and give y = 0, and the
    reverse direction starts before them, as with torch's packed sequences. A state that is ``None`` is zeros. y is (outputs,
    last state), so that the state goes on in the next piece of a long sequence. Each part of ``gy`` may be ``None``, for
    zeros. ``input_size=None`` is for ``infer_sizes`` to find.

    ``num_layers`` stand above each other, each in one direction or, ``bidirectional``, in both; ``nonlinearity`` is "tanh" or
    "relu".

    Params   for each layer l ``weight_ih_l0`` (hidden, features), ``weight_hh_l0`` (hidden, hidden), and with ``bias``
             ``bias_ih_l0`` and ``bias_hh_l0`` (hidden,), with ``_reverse`` for the other direction; uniform in ±1 /
             √hidden_size.
    Cache    x, and for each layer and direction its input, outputs and gates; what dropout kept.
    Raises   ``ValueError`` for params of another layer, an ``x`` with other axes, sizes or dtype, and dropout without
             a key.
    Source   Elman 1990.
    """

    nonlinearity: str = field(default="tanh", validator=one_of("tanh", "relu"))
    bias: bool = field(default=True, validator=flag)
    batch_first: bool = field(default=False, validator=flag)
    dropout: float = field(default=0.0, validator=DROPOUT)
    bidirectional: bool = field(default=False, validator=flag)

    @property
    def kind(self) -> str:
        return self.nonlinearity


@frozen
class LSTM(Recurrent):
    """Long short-term memory over a sequence, with the arguments, params and shapes of ``torch.nn.LSTM``.

    The forms of x and y are those of ``RNN``, with a pair (h, c) for the state. With ``proj_size`` each h is projected to it.

    Params   those of ``RNN`` with 4 · hidden rows, in the order i f u o, and with ``proj_size`` ``weight_hr_l0`` (proj, hidden).
    Cache    x, and for each layer and direction its input, outputs, cell states and gates; what dropout kept.
    Raises   ``ValueError`` for params of another layer, an ``x`` with other axes, sizes or dtype, and dropout without
             a key.
    Source   Hochreiter & Schmidhuber 1997; Sak et al. 2014 for the projection.
    """

    ensemble_mode = "loop"

    proj_size: int = field(default=0, validator=whole(0))

    def __attrs_post_init__(self) -> None:
        if self.proj_size >= self.hidden_size:
            raise value_error("LSTM", f"proj_size must be below hidden_size={self.hidden_size}", repr(self.proj_size))

    @property
    def kind(self) -> str:
        return "lstm"

    def _widths(self) -> tuple[int, ...]:
        return self.proj_size or self.hidden_size, self.hidden_size


@frozen
class GRU(Recurrent):
    """Gated recurrent units over a sequence, with the arguments, params and shapes of ``torch.nn.GRU``.

    The forms of x and y are those of ``RNN``.

    Params   those of ``RNN`` with 3 · hidden rows, in the order r z n.
    Cache    x, and for each layer and direction its input, outputs, gates, and n's part of the states' half; what dropout kept.
    Raises   ``ValueError`` for params of another layer, an ``x`` with other axes, sizes or dtype, and dropout without
             a key.
    Source   Cho et al. 2014.
    """

    @property
    def kind(self) -> str:
        return "gru"
