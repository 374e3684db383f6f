"""What newcomers from torch and optax try first: refused, with the right way, where it cannot work."""

import pytest
import torch

import funcnet as fn


def rate(step: int, scale: float) -> float:
    """Return a rate of two arguments, which no optimizer can call."""
    return scale / (step + 1)


@pytest.mark.parametrize(
    "lr",
    [fn.Linear(2, 3), fn.MSE(), fn.CosineSchedule, fn.ReduceOnPlateau, rate],
    ids=["layer", "loss", "class", "class with init", "function of two"],
)
def test_a_rate_is_no_layer_loss_class_or_function_of_more(lr: object) -> None:
    """These values are callable, but not with a step."""
    for make in (fn.SGD, fn.Muon, lambda one: fn.AdamW(betas=(0.9, one))):
        with pytest.raises(ValueError, match=r"must be a (number, a 0-d tensor, or a schedule|tuple of two numbers)"):
            make(lr)


def test_a_rate_of_another_kind_is_refused() -> None:
    """The rate of a plateau is a tensor, and the plateau itself is refused."""
    with pytest.raises(ValueError, match=r"^SGD: lr must be a number, a schedule, or a real 0-d tensor, got ReduceOnPlateau\(lr"):
        fn.SGD(lr=fn.ReduceOnPlateau(0.1))
    plateau = fn.ReduceOnPlateau(0.1)
    assert fn.SGD(lr=plateau.rate(plateau.init())).rates({"step": torch.tensor(0)})["lr"] == pytest.approx(0.1)


def test_a_rate_may_be_any_function_of_the_step() -> None:
    """The function may have a default, be a method, or have no signature."""
    for lr in (lambda step, scale=0.1: scale, fn.CosineSchedule(0.1, 10), [0.1, 0.2].__getitem__):
        assert fn.SGD(lr).rates({"step": torch.tensor(0)})["lr"] == pytest.approx(0.1)


def test_a_chain_says_how_it_ends() -> None:
    """Optax's last part is a transform."""
    with pytest.raises(ValueError, match=r"^chain: the last part must be an optimizer, like SGD\(lr=0.1\), got ScaleBy"):
        fn.chain(fn.ScaleByAdam(), fn.ScaleByLearningRate(0.1))


def test_a_loss_scale_is_not_skipped() -> None:
    """Within ``SkipNonFinite`` its factor would never change; before it, the factor falls until gradients are finite."""
    with pytest.raises(ValueError, match=r"^SkipNonFinite: a LossScale must come before it, chain\(LossScale\(\), SkipNonFinite"):
        fn.SkipNonFinite(fn.chain(fn.LossScale(), fn.SGD(0.1)))
    net = fn.cast(fn.Linear(2, 1), torch.float16)
    x, target = torch.ones(4, 2), torch.zeros(4, 1)
    step = fn.train_step(net, fn.MSE(), fn.chain(fn.LossScale(1e30), fn.SkipNonFinite(fn.SGD(0.1))))
    params = net.init(0)
    state, losses = step.opt.init(params), []
    for _ in range(110):
        params, state, value = step(params, state, x, target)
        losses.append(value.item())
    assert step.opt.rates(state)["loss_scale"] < 1e6
    assert state[1]["skipped"] > 80
    assert losses[-1] < 0.1 * losses[0]


def test_labels_of_a_language_model_say_where_the_classes_belong() -> None:
    """The last Linear gives logits (N, length, classes); labels of other shapes get no hint."""
    y = torch.zeros(2, 5, 7)
    with pytest.raises(ValueError, match=r"the classes; if the classes are in the last axis, end the net with Transpose"):
        fn.CrossEntropy()(y, torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"without axis 1, the classes, got a tensor of shape \(2, 3\)"):
        fn.CrossEntropy()(y, torch.zeros(2, 3, dtype=torch.int64))
    net = fn.Transpose(1, -1)
    assert fn.CrossEntropy()(net({}, y), torch.zeros(2, 5, dtype=torch.int64)).item() == pytest.approx(1.9459101)


def test_class_weights_in_a_tensor_say_how_to_write_them() -> None:
    """In torch they are a tensor; a value holds numbers."""
    weight = torch.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"must not hold a tensor.*write a vector as tuple\(weight.tolist\(\)\)"):
        fn.CrossEntropy(weight=weight)
    assert fn.CrossEntropy(weight=tuple(weight.tolist())).weight == (1.0, 2.0)


def test_a_compiled_step_of_lbfgs_is_refused_at_once() -> None:
    """The loss depends on values; functions that it calls may be compiled."""
    step = fn.train_step(fn.Linear(2, 1), fn.MSE(), fn.LBFGS())
    with pytest.raises(ValueError, match=r"^compile: a step must not read the loss during the update, as LBFGS does"):
        fn.compile(step)
    assert fn.compile(fn.train_step(fn.Linear(2, 1), fn.MSE(), fn.SAM(fn.SGD()))).programs == 0


def test_a_contrastive_loss_names_what_came() -> None:
    """The loss got a pair, but expects the views stacked in one tensor."""
    with pytest.raises(ValueError, match=r"y must be a dense floating tensor, got a tuple of 2"):
        fn.NTXent()((torch.ones(2, 3), torch.ones(2, 3)), None)


def test_noise_for_privacy_needs_clipped_gradients() -> None:
    """In a train step it would hide nothing; the loop in the docstring clips per example."""
    net, opt = fn.Linear(2, 1), fn.chain(fn.AddPrivacyNoise(1.0, max_norm=1.0, batch_size=4), fn.SGD(0.1))
    x, target = torch.ones(4, 2), torch.zeros(4, 1)
    for make in (
        lambda: fn.train_step(net, fn.MSE(), opt),
        lambda: fn.fit(net, fn.MSE(), opt, (x, target), epochs=1, batch_size=2, key=0, progress=False),
    ):
        with pytest.raises(ValueError, match=r"^train_step: AddPrivacyNoise needs the gradients of clipped_grads"):
            make()
    params = net.init(0)
    _, grads = fn.clipped_grads(net, fn.MSE(), 1.0)(params, x, target)
    assert opt.update(grads, opt.init(params), params)[0]["weight"].isfinite().all()


def test_params_in_the_place_of_a_number_are_described() -> None:
    """``torch.optim.Adam(params, lr)`` out of habit gives an error of one line, without the numbers of all params."""
    params = fn.serial(fn.Linear(20, 30), fn.Linear(30, 2)).init(0)
    for make in (fn.Adam, fn.ClipByGlobalNorm, fn.EMA):
        with pytest.raises(ValueError, match=r"got a tuple of 2$"):
            make(params)
