"""RNN, LSTM and GRU: cells along a sequence, with the arguments, params and shapes of torch.nn.

Each step is a step of the cell in ``cells``. The formulas use the same letters: pₜ = xₜ Wᵀ + b, sₜ = hₜ₋₁ Uᵀ + b'. x (T, N,
input_size) and y (T, N, hidden_size).
"""

from typing import TYPE_CHECKING

from attrs import field

from funcnet.errors import flag, one_of, value_error, whole
from funcnet.layers.recurrent.sequences import DROPOUT, Recurrent
from funcnet.value import frozen


@frozen
class RNN(Recurrent):
    """Elman network over a sequence.

        yₜ  = hₜ = tanh(pₜ + sₜ)                      pₜ = xₜ Wᵀ + b,  sₜ = hₜ₋₁ Uᵀ + b';   ReLU with ``nonlinearity="relu"``
        ghₜ = gyₜ + gpₜ₊₁ U                           gpₜ = ghₜ ⊙ (1 - hₜ²)
        gxₜ = gpₜ W    gW = Σₜ gpₜ xₜᵀ    gU = Σₜ gpₜ hₜ₋₁ᵀ    gb = gb' = Σₜ gpₜ

    y comes with the last state, from which the next call can continue a long sequence. ``Select(0)`` keeps only y. Each part of
    gy can be ``None``, for zeros.

    Args:
        input_size: Number of features of a step; ``None`` to infer it with ``infer_sizes``.
        hidden_size: Number of features of the state.
        num_layers: Number of layers; each takes the outputs of the layer below.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bias: Whether to learn the biases b and b'.
        batch_first: Whether x is (N, T, input_size) instead of (T, N, input_size).
        dropout: Probability of dropping an output between two layers. It needs a key, except after ``inference()``.
        bidirectional: Whether each layer also runs from the last step to the first; the outputs are joined along the last axis.

    Shape:
        x (T, N, input_size), (x, state) or (x, state, lengths) → (y, last state), y (T, N, hidden_size), with twice as many
        features if ``bidirectional``. The batch axis is optional. The state (layers · directions, N, hidden_size) is zeros by
        default, and if it is ``None``. lengths (N,) are whole numbers: the steps of a row after its length leave the state
        unchanged and give y = 0, and the reverse direction starts at the last valid step, as with torch's packed sequences.

    Params:
        weight_ih_l0: W (hidden_size, input_size), uniform in ±1 / √hidden_size. The names for the layers above end in ``_l1``,
            ..., and the names for the reverse direction in ``_reverse``. Above the first layer W has one column for each output
            of the layer below.
        weight_hh_l0: U (hidden_size, hidden_size), the same.
        bias_ih_l0: b (hidden_size,), the same; absent with ``bias=False``.
        bias_hh_l0: b' (hidden_size,), the same; absent with ``bias=False``.

    Cache:
        x, not copied; for each layer and direction its input, outputs and gates; the dropout masks.

    Raises:
        ValueError: If the state or the lengths do not fit the sequence, or dropout has no key.

    References:
        Elman 1990; names, shapes and initial values as in ``torch.nn.RNN``.

    >>> import torch
    >>> net = RNN(4, 3, batch_first=True)
    >>> y, h = net(net.init(0), torch.ones(2, 5, 4))
    >>> y.shape, h.shape
    (torch.Size([2, 5, 3]), torch.Size([1, 2, 3]))
    """

    nonlinearity: str = field(default="tanh", validator=one_of("tanh", "relu"))
    bias: bool = field(default=True, validator=flag)
    batch_first: bool = field(default=False, validator=flag)
    dropout: float = field(default=0.0, validator=DROPOUT)
    bidirectional: bool = field(default=False, validator=flag)

    if TYPE_CHECKING:  # a type checker would put inherited fields first

        def __init__(
            self,
            input_size: int | None,
            hidden_size: int,
            num_layers: int = 1,
            nonlinearity: str = "tanh",
            bias: bool = True,
            batch_first: bool = False,
            dropout: float = 0.0,
            bidirectional: bool = False,
        ) -> None: ...

    @property
    def kind(self) -> str:
        return self.nonlinearity


@frozen
class LSTM(Recurrent):
    """Long short-term memory over a sequence.

        iₜ, fₜ, uₜ, oₜ = σ, σ, tanh, σ of pₜ + sₜ     pₜ = xₜ Wᵀ + b,  sₜ = hₜ₋₁ Uᵀ + b'
        cₜ  = fₜ ⊙ cₜ₋₁ + iₜ ⊙ uₜ                     yₜ = hₜ = mₜ = oₜ ⊙ tanh(cₜ),  or hₜ = V mₜ with ``proj_size``
        ghₜ = gyₜ + gpₜ₊₁ U                           gmₜ = ghₜ,  or Vᵀ ghₜ;  gpₜ and gcₜ₋₁ from gmₜ and gcₜ as in ``LSTMCell``
        gxₜ = gpₜ W    gW = Σₜ gpₜ xₜᵀ    gU = Σₜ gpₜ hₜ₋₁ᵀ    gb = gb' = Σₜ gpₜ    gV = Σₜ ghₜ mₜᵀ

    y comes with the last state (h, c), from which the next call can continue a long sequence. ``Select(0)`` keeps only y. Each
    part of gy can be ``None``, for zeros.

    Args:
        input_size: Number of features of a step; ``None`` to infer it with ``infer_sizes``.
        hidden_size: Number of features of the state.
        num_layers: Number of layers; each takes the outputs of the layer below.
        bias: Whether to learn the biases b and b'.
        batch_first: Whether x is (N, T, input_size) instead of (T, N, input_size).
        dropout: Probability of dropping an output between two layers. It needs a key, except after ``inference()``.
        bidirectional: Whether each layer also runs from the last step to the first; the outputs are joined along the last axis.
        proj_size: Number of features that each h is projected to, less than ``hidden_size``; 0 for no projection.

    Shape:
        x (T, N, input_size), (x, state) or (x, state, lengths) → (y, last state), y (T, N, hidden_size), with twice as many
        features if ``bidirectional``. The batch axis is optional. The state is (h, c), each (layers · directions, N,
        hidden_size), zeros by default, and if it is ``None``. With ``proj_size`` h and y have that many features. lengths (N,)
        are whole numbers: the steps of a row after its length leave the state unchanged and give y = 0, and the reverse direction
        starts at the last valid step, as with torch's packed sequences.

    Params:
        weight_ih_l0: W (4 · hidden_size, input_size), uniform in ±1 / √hidden_size; rows in the order i f u o. The names for the
            layers above end in ``_l1``, ..., and the names for the reverse direction in ``_reverse``. Above the first layer W has
            one column for each output of the layer below.
        weight_hh_l0: U (4 · hidden_size, hidden_size), the same.
        bias_ih_l0: b (4 · hidden_size,), the same; absent with ``bias=False``.
        bias_hh_l0: b' (4 · hidden_size,), the same; absent with ``bias=False``.
        weight_hr_l0: V (proj_size, hidden_size), the same; only with ``proj_size``.

    Cache:
        x, not copied; for each layer and direction its input, outputs, cell states and gates; the dropout masks.

    Raises:
        ValueError: If ``proj_size`` is not below ``hidden_size``, the state or the lengths do not fit the sequence, or dropout
            has no key.

    References:
        Hochreiter & Schmidhuber 1997; Sak et al. 2014 for the projection; names, shapes and initial values as in
        ``torch.nn.LSTM``.

    >>> import torch
    >>> net = LSTM(4, 3, bidirectional=True)
    >>> y, (h, c) = net(net.init(0), torch.ones(5, 2, 4))
    >>> y.shape, h.shape
    (torch.Size([5, 2, 6]), torch.Size([2, 2, 3]))
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
    """Gated recurrent units over a sequence.

        rₜ, zₜ = σ, σ of pₜ + sₜ                      nₜ = tanh(pₜ + rₜ ⊙ sₜ)             pₜ = xₜ Wᵀ + b,  sₜ = hₜ₋₁ Uᵀ + b'
        yₜ  = hₜ = (1 - zₜ) ⊙ nₜ + zₜ ⊙ hₜ₋₁
        ghₜ = gyₜ + gsₜ₊₁ U + ghₜ₊₁ ⊙ zₜ₊₁            gpₜ and gsₜ from ghₜ as in ``GRUCell``
        gxₜ = gpₜ W    gW = Σₜ gpₜ xₜᵀ    gU = Σₜ gsₜ hₜ₋₁ᵀ    gb = Σₜ gpₜ    gb' = Σₜ gsₜ

    y comes with the last state, from which the next call can continue a long sequence. ``Select(0)`` keeps only y. Each part of
    gy can be ``None``, for zeros.

    Args:
        input_size: Number of features of a step; ``None`` to infer it with ``infer_sizes``.
        hidden_size: Number of features of the state.
        num_layers: Number of layers; each takes the outputs of the layer below.
        bias: Whether to learn the biases b and b'.
        batch_first: Whether x is (N, T, input_size) instead of (T, N, input_size).
        dropout: Probability of dropping an output between two layers. It needs a key, except after ``inference()``.
        bidirectional: Whether each layer also runs from the last step to the first; the outputs are joined along the last axis.

    Shape:
        x (T, N, input_size), (x, state) or (x, state, lengths) → (y, last state), y (T, N, hidden_size), with twice as many
        features if ``bidirectional``. The batch axis is optional. The state (layers · directions, N, hidden_size) is zeros by
        default, and if it is ``None``. lengths (N,) are whole numbers: the steps of a row after its length leave the state
        unchanged and give y = 0, and the reverse direction starts at the last valid step, as with torch's packed sequences.

    Params:
        weight_ih_l0: W (3 · hidden_size, input_size), uniform in ±1 / √hidden_size; rows in the order r z n. The names for the
            layers above end in ``_l1``, ..., and the names for the reverse direction in ``_reverse``. Above the first layer W has
            one column for each output of the layer below.
        weight_hh_l0: U (3 · hidden_size, hidden_size), the same.
        bias_ih_l0: b (3 · hidden_size,), the same; absent with ``bias=False``.
        bias_hh_l0: b' (3 · hidden_size,), the same; absent with ``bias=False``.

    Cache:
        x, not copied; for each layer and direction its input, outputs and gates, and the part of s that belongs to n; the dropout
        masks.

    Raises:
        ValueError: If the state or the lengths do not fit the sequence, or dropout has no key.

    References:
        Cho et al. 2014; names, shapes and initial values as in ``torch.nn.GRU``.

    >>> import torch
    >>> net = GRU(4, 3, num_layers=2)
    >>> x, lengths = torch.ones(5, 2, 4), torch.tensor([5, 2])
    >>> y, h = net(net.init(0), (x, None, lengths))
    >>> y[2:, 1].abs().sum(), h.shape
    (tensor(0.), torch.Size([2, 2, 3]))
    """

    @property
    def kind(self) -> str:
        return "gru"
