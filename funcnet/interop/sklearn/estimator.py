"""The base class of the estimators, which train a net on scikit-learn's arrays with ``fit``.

Rows of weight 0 are omitted, so integer weights are equivalent to repeated rows.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from funcnet import random, tree
from funcnet.arguments import require_whole
from funcnet.contract import Layer
from funcnet.errors import describe, is_number, is_whole, value_error
from funcnet.fitting.arguments import LOSS, OPTIMIZER, require
from funcnet.fitting.callbacks import Callback
from funcnet.fitting.data import as_tensors
from funcnet.fitting.early_stopping import EarlyStopping
from funcnet.fitting.evaluation import predict
from funcnet.fitting.history import History
from funcnet.fitting.loop import fit
from funcnet.flattening import Tree
from funcnet.interop.sklearn.parameters import ValueParameters
from funcnet.interop.sklearn.row_training import require_rows_apart, sized_net, with_row_weights, without_weights
from funcnet.interop.sklearn.rows import Rows, checked_inputs, checked_rows, dtype_of
from funcnet.losses.loss import Loss
from funcnet.optim.adam import Adam
from funcnet.optim.base import Optimizer
from funcnet.random.keys import Key, as_key


class Training(NamedTuple):
    """The state of a training, with everything needed to continue it; ``given`` is the parameter ``net`` at the start."""

    given: Any
    loss: Loss
    net: Layer
    params: Any
    state: Tree
    history: History
    key: Key
    dtype: torch.dtype
    shape_of_x: tuple[int, ...]
    shape_of_y: tuple[int, ...]

    @property
    def precision(self) -> torch.dtype:
        """The dtype of params and outputs; floating even if x has integers."""
        return self.dtype if self.dtype.is_floating_point else torch.get_default_dtype()


class Estimator(ValueParameters):
    """A net, a loss and an optimizer as an estimator; ``Classifier`` and ``Regressor`` document its parameters."""

    def __init__(
        self,
        net: Any = None,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        *,
        epochs: int = 100,
        batch_size: int = 64,
        drop_last: bool = False,
        key: Key | int = 0,
        random_state: Any = None,
        early_stopping: bool | EarlyStopping = False,
        patience: int = 10,
        validation_fraction: float = 0.1,
        metrics: Any = (),
        callbacks: Any = (),
        warm_start: bool = False,
        dtype: Any = None,
        device: Any = None,
        progress: Any = False,
    ) -> None:
        self.net = net
        self.loss = loss
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.key = key
        self.random_state = random_state
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.metrics = metrics
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.dtype = dtype
        self.device = device
        self.progress = progress

    @abstractmethod
    def _default_loss(self) -> Loss:
        """Return the default loss; called after ``_learned``."""

    @abstractmethod
    def _learned(self, rows: Rows, fresh: bool, classes: Any = None) -> Rows:
        """Store the properties of y that predictions need, or compare y with them; return rows with numeric y and all weights."""

    @abstractmethod
    def _target(self, y: Any, training: Training) -> Tensor:
        """Return the target of the loss."""

    @abstractmethod
    def _outputs(self) -> int:
        """Return the number of net outputs for each row."""

    def _loss(self) -> Any:
        return self._default_loss() if self.loss is None else self.loss

    def _strata(self, y: Any) -> Any:
        """Return the labels for stratifying the validation rows, or ``None``."""
        return None

    @property
    def loss_curve_(self) -> list[float]:
        """The mean loss of each epoch."""
        return self.history_["loss"]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on the rows of X, with new params, or with the current params if ``warm_start`` is set.

        Args:
            X: Inputs (N, n_features), or (N, ...) for nets that accept them.
            y: Targets (N,), or (N, n_outputs).
            sample_weight: Weights (N,) of at least 0. A row of weight 2 counts as two rows of weight 1; only ratios matter.
        """
        fresh = not (self._flag("warm_start") and hasattr(self, "_training"))
        with self._restored_if_it_fails():
            rows = self._learned(checked_rows(self, X, y, sample_weight, fresh), fresh).of_mean_one()
            return self._train(rows, self.epochs, fresh, self._stopping())

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        """Train for one more epoch on the given rows."""
        if self._stopping():
            raise value_error(f"{type(self).__name__}.partial_fit", "early_stopping must be False", repr(self.early_stopping))
        fresh = not hasattr(self, "_training")
        with self._restored_if_it_fails():
            return self._train(self._learned(checked_rows(self, X, y, sample_weight, fresh), fresh, classes), 1, fresh, None)

    @contextmanager
    def _restored_if_it_fails(self) -> Iterator[None]:
        """Restore all attributes if training fails, so that params, classes and columns stay consistent."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _train(self, rows: Rows, epochs: int, fresh: bool, stopping: EarlyStopping | None) -> Self:
        """Train on checked rows."""
        loss = self._loss()
        opt = Adam() if self.optimizer is None else self.optimizer
        require(type(self).__name__, loss=(Loss, LOSS, loss), optimizer=(Optimizer, OPTIMIZER, opt))
        require_whole(type(self).__name__, "epochs", 1, epochs)
        if not isinstance(self.callbacks, (tuple, list)):
            raise value_error(type(self).__name__, "callbacks must be a list", describe(self.callbacks))
        at = self._started(rows) if fresh else self._continued()
        rows, held = self._split(rows, at.key) if stopping else (rows, None)
        data, metrics = self._tensors(rows, at), self.metrics
        if rows.weight is not None:
            y = torch.zeros((1, *at.shape_of_y), dtype=at.precision, device=data[0].device)
            loss, metrics = with_row_weights(loss, y, *data[1]), without_weights(metrics)
        callbacks = [*self.callbacks, *([stopping] if stopping else [])]
        done = fit(
            at.net, loss, opt, data, epochs=epochs, batch_size=self.batch_size, key=at.key, params=at.params, state=at.state,
            validation=self._tensors(held, at) if held else None, metrics=metrics, callbacks=callbacks, progress=self.progress,
            epochs_done=len(at.history.get("epoch", ())), drop_last=self._flag("drop_last"),
        )  # fmt: skip
        chosen = any(isinstance(one, Callback) and type(one).params is not Callback.params for one in callbacks)
        self.params_ = done.params if chosen else opt.eval_params(done.state, done.params)
        self._keep(
            at._replace(loss=self._loss(), params=done.params, state=done.state, history=_joined(at.history, done.history))
        )
        return self

    def _keep(self, training: Training) -> None:
        self._training = training
        self.net_, self.state_, self.history_ = training.net, training.state, training.history
        self.n_iter_ = len(training.history["epoch"])

    def _started(self, rows: Rows) -> Training:
        """Return a new training, with the params that ``fit`` initializes from the same key, in the precision of x."""
        dtype: Any = dtype_of(self, rows.x)
        x, key = self._tensor(rows.x[:2], dtype), self._seed()
        net, shape_of_y = sized_net(self.net, x, self._outputs(), type(self).__name__)
        at = Training(self.net, self._loss(), net, None, None, History(), key, dtype, rows.x.shape[1:], shape_of_y)
        params = tree.to(tree.cast(net.init(random.split(key, 3)[0]), at.precision), x.device)
        require_rows_apart(net, params, x, type(self).__name__)
        return at._replace(params=params)

    def _continued(self) -> Training:
        """Return the previous training; optimizer and loss may have changed, but nothing that affects the structure of params."""
        at, who = self._training, type(self).__name__
        if self.net != at.given:
            rule = f"warm_start and partial_fit continue with the first net, {_named(at.given)}"
            raise value_error(who, rule, _named(self.net))
        if dtype_of(self) not in {None, at.dtype}:
            raise value_error(who, f"warm_start and partial_fit continue with the dtype {at.dtype}", str(dtype_of(self)))
        if self._outputs() != math.prod(at.shape_of_y):
            rule = f"warm_start and partial_fit continue with a loss for {math.prod(at.shape_of_y)} outputs"
            raise value_error(who, rule, f"{self._loss()!r}, for {self._outputs()}")
        return at

    def _seed(self) -> Key:
        """Return the key, or a key derived from ``random_state``, which scikit-learn's ensembles set."""
        if self.random_state is None:
            return as_key(self.key)
        if is_whole(self.random_state):
            return as_key(int(self.random_state))
        if self.random_state is not np.random and not isinstance(self.random_state, np.random.RandomState):
            rule = "random_state must be a whole number, a numpy.random.RandomState or None"
            raise value_error(type(self).__name__, rule, describe(self.random_state))
        return as_key(int(check_random_state(self.random_state).randint(2**31 - 1)))

    def _tensors(self, rows: Rows, at: Training) -> tuple[Tensor, Any]:
        """Return x and the target on the device; with weights the target is a pair."""
        target = self._target(rows.y, at)
        weight = None if rows.weight is None else self._tensor(rows.weight, at.precision)
        return self._tensor(rows.x, at.dtype), target if weight is None else (target, weight)

    def _tensor(self, array: Any, dtype: torch.dtype) -> Tensor:
        tensor: Tensor = as_tensors(array)
        return tensor.to(self._device(), dtype)

    def _device(self) -> torch.device:
        try:
            return torch.device(self.device or "cpu")
        except (RuntimeError, TypeError):
            raise value_error(type(self).__name__, "device must be a device of torch, or None for the CPU", self.device) from None

    def _split(self, rows: Rows, key: Key) -> tuple[Rows, Rows]:
        """Return the training rows and the validation rows."""
        if not is_number(self.validation_fraction) or not 0 < self.validation_fraction < 1:
            rule = "validation_fraction must be a number between 0 and 1, both excluded"
            raise value_error(type(self).__name__, rule, describe(self.validation_fraction))
        seed = int(random.fold_in(key, "validation")) % 2**32
        how = {"test_size": float(self.validation_fraction), "random_state": seed, "stratify": self._strata(rows.y)}
        try:
            train, held = train_test_split(np.arange(len(rows.x)), **how)
        except ValueError as error:  # scikit-learn's message names arguments of train_test_split
            rule = f"validation_fraction={self.validation_fraction} must leave rows of each class for training and validation"
            raise value_error(type(self).__name__, rule, f"{len(rows.x)} rows: {error}") from error
        return rows.take(train), rows.take(held)

    def _stopping(self) -> EarlyStopping | None:
        if isinstance(self.early_stopping, EarlyStopping):
            return self.early_stopping
        return EarlyStopping(self.patience) if self._flag("early_stopping") else None

    def _flag(self, name: str) -> bool:
        if not isinstance(getattr(self, name), (bool, np.bool_)):
            raise value_error(type(self).__name__, f"{name} must be True or False", describe(getattr(self, name)))
        return bool(getattr(self, name))

    def _predicted(self, X: Any) -> Any:
        """Return the outputs of the net for all rows as an array (N, n_outputs)."""
        check_is_fitted(self)
        at = self._training
        x = self._tensor(checked_inputs(self, X, at.shape_of_x), at.dtype)
        y = predict(at.net, self.params_, x)
        return y.reshape(len(y), -1).to("cpu", torch.promote_types(y.dtype, torch.float32)).numpy()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_training")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _named(given: Any) -> str:
    return repr(given) if isinstance(given, Layer | None) else getattr(given, "__qualname__", repr(given))


def _joined(history: History, further: History) -> History:
    """Concatenate two histories; ``epoch`` keeps counting."""
    joined = history.copy()
    for row in further.rows():
        joined.append(row)
    return joined
