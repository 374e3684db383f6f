"""``check_loss``: the library's losses pass, and a broken loss fails with the law or rule that it breaks."""

import pytest
import torch
from broken_losses import BROKEN, HalfSums, Squares
from cases import losses as catalogue
from torch import Tensor

import funcnet as fn
from funcnet.losses.loss import LossLayer
from funcnet.testing import check_loss
from funcnet.testing.losses import check_rules

Y, TARGET = fn.random.normal(0, (64, 3)), fn.random.normal(1, (64, 3))
TARGET = torch.where(TARGET.abs() < 0.3, 0.0, TARGET)
LABELLED = {name: case for name, case in catalogue.CASES.items() if isinstance(case.layer, LossLayer)}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_loss_fails_with_the_rule_it_breaks(kind: type) -> None:
    """The message begins with the name of the law or rule, and ends with the loss."""
    y, target = (40 * Y, 0 * TARGET) if kind is HalfSums else (Y[:6], TARGET[:6])  # there the sum overflows, not the mean
    with pytest.raises(AssertionError) as caught:
        check_loss(kind(), y, target, compiled=False)
    assert str(caught.value).startswith(f"{BROKEN[kind]}:")


def test_the_loss_that_they_are_built_on_is_sound() -> None:
    """Each of them therefore fails because of its change."""
    check_loss(Squares(), Y[:6], TARGET[:6], compiled=False)


@pytest.mark.parametrize("name", LABELLED)
def test_every_loss_of_the_catalogue_keeps_the_rules(name: str) -> None:
    """Every reduction is tried; the laws of their layers are tried with the catalogue."""
    check_rules(LABELLED[name].layer.loss, *LABELLED[name].x, batched=LABELLED[name].batched)


@pytest.mark.compiled
def test_it_compiles_if_asked() -> None:
    """Forward and backward are traced as one graph."""
    check_loss(fn.CrossEntropy(), Y[:4], torch.tensor([0, 1, 2, 1]), dtypes=(torch.float64,))


def test_a_loss_over_pairs_of_rows_has_no_rows() -> None:
    """``batch_dependent`` losses, and ``batched=False``, skip the rule of weights and nothing else."""

    @fn.frozen
    class Variance(fn.Loss):
        reduction: str = "sum"

        def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            d = y - y.mean(0, keepdim=True)
            return (d * d).sum(), d

        def backward(self, cache: Tensor, g: Tensor | None = None) -> Tensor:
            return 2 * cache * (1 if g is None else g)

    @fn.frozen
    class Dependent(Variance):
        @property
        def batch_dependent(self) -> bool:
            return True

    y, target = fn.random.normal(0, (5, 2), dtype=torch.float64), torch.arange(5)
    check_rules(Variance(), y, target, batched=False)
    check_rules(Dependent(), y, target)
    check_rules(2 * Dependent() + Dependent(), y, target)
    with pytest.raises(AssertionError, match="rule of losses, weights"):
        check_rules(Variance(), y, target)


def test_weights_of_terms_must_be_at_their_terms() -> None:
    """Their sum, the divisor of the mean, is right here."""

    @fn.frozen
    class Shifted(fn.CrossEntropy):
        def term_weights(self, target: Tensor) -> Tensor | None:
            return super().term_weights(target).roll(1)

    y, labels = Y[:6].double(), torch.tensor([2, 0, 0, 0, 0, 0])
    check_rules(fn.CrossEntropy((1.0, 2.0, 4.0)), y, labels)
    with pytest.raises(AssertionError, match="rule of losses, masks"):
        check_rules(Shifted((1.0, 2.0, 4.0)), y, labels)


def test_only_losses_are_judged() -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="check_loss: loss must be a loss, got 3"):
        check_loss(3, Y, TARGET)
