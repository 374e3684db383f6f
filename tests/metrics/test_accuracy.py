"""Accuracy of labels, of rows, of images, of logits in one column, and with ignored rows."""

import pytest
import torch

import funcnet as fn

Y = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])


def test_accuracy_takes_labels_and_rows():
    """Accuracy is the share of rows whose largest output is at the label, or at the largest entry of the target."""
    assert float(fn.accuracy(Y, torch.tensor([1, 0, 0]))) == pytest.approx(2 / 3)
    assert float(fn.accuracy(Y, torch.eye(2)[[1, 0, 1]])) == 1.0


def test_accuracy_takes_axes_after_the_classes():
    """Each element of those axes has a label, or probabilities."""
    y = torch.stack((Y, 1 - Y), -1)  # (3, 2, 2)
    labels = torch.tensor([[1, 0], [0, 0], [0, 0]])
    assert float(fn.accuracy(y, labels)) == pytest.approx(4 / 6)
    assert float(fn.accuracy(y, torch.eye(2)[labels].movedim(-1, 1))) == pytest.approx(4 / 6)


def test_what_is_ignored_does_not_count():
    """Ignored rows are neither right nor wrong; if all are ignored, there is no share."""
    assert float(fn.accuracy(Y, torch.tensor([1, -100, 0]))) == 0.5
    assert float(fn.accuracy(Y, torch.tensor([1, 0, 0]), ignore_index=0)) == 1.0
    assert fn.accuracy(Y, torch.full((3,), -100)).isnan()
    assert float(fn.accuracy(torch.tensor([[1.0], [-1.0], [5.0]]), torch.tensor([1, 1, -100]))) == 0.5


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_column_holds_logits(dtype, shape):
    """The class is 1 above 0, as in the loss BCEWithLogits."""
    y, target = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]]), torch.tensor([1, 0, 0, 0]).to(dtype).reshape(shape)
    assert float(fn.accuracy(y, target)) == 0.75


MESSAGES = {
    "accuracy: y must be (N, classes, ...), and target (N, ...) or (N, classes, ...), got shapes (3, 2) and (2,)": lambda: fn.accuracy(Y, torch.tensor([1, 0])),
    "and target (N, ...) or (N, classes, ...), got shapes (3,) and (3,)": lambda: fn.accuracy(Y[:, 0], torch.tensor([1, 0, 1])),
    "accuracy: with one class the target must hold numbers from 0 to 1, got numbers from 0 to 2": lambda: fn.accuracy(Y[:, :1], torch.tensor([0, 1, 2])),
    "accuracy: y and target must be tensors, got a list of 3": lambda: fn.accuracy(Y, [1, 0, 1]),
    "accuracy: ignore_index must be a whole number below 2**63, got 0.5": lambda: fn.accuracy(Y, torch.tensor([1, 0, 1]), 0.5),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_arguments_are_refused_with_their_message(message):
    """The message names the metric, the rule, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


def test_the_accuracy_of_the_largest_outputs_has_its_own_column() -> None:
    """Top-k accuracy can therefore be used beside the accuracy."""
    y, target = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), torch.tensor([1, 2])
    found = fn.evaluate(fn.Identity(), {}, (y, target), [fn.accuracy, fn.Accuracy(top_k=2), fn.Accuracy(3, name="three")])
    assert found == {"accuracy": 0.0, "top_2_accuracy": 0.5, "three": 1.0}
