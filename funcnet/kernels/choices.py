"""Choices between kernels: each has a name, options, and a rule that decides by processor.

The value of a choice is a number: the size, in the unit of the choice, from which the last option is used. 0 uses the last option
for all sizes, ``NEVER`` the first. A rule depends only on the processor, and the kernel used only on the value and the sizes of
the operands, so results are identical bit for bit from run to run. The module with the kernel reads ``Choice.value``, and
documents the measurements behind the rule.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pkgutil import walk_packages

from funcnet.errors import value_error
from funcnet.kernels.processor import Processor, this_processor
from funcnet.kernels.tracing import is_compiling

NEVER = 1 << 62
"""Threshold that no size reaches."""

AUTOMATIC = "auto"
"""The option, available for every choice, that applies its rule."""

Rule = Callable[[Processor], int]


class Choice:
    """A choice between kernels, created with ``choice``.

    Attributes:
        name: What is chosen, such as ``"matrix products"``.
        options: The value of each option, by name.
        unit: What the value counts, such as ``"multiplications"``; empty if the choice has no thresholds.
        rule: Function that returns the value for a processor.
        automatic: The value for this processor.
        value: The current value. Kernels read it in each call; ``set_choice`` and ``forced`` change it.
    """

    __slots__ = ("automatic", "name", "options", "rule", "unit", "value")

    def __init__(self, name: str, options: Mapping[str, int], rule: Rule, unit: str) -> None:
        self.name, self.options, self.rule, self.unit = name, dict(options), rule, unit
        self.automatic = self.value = rule(this_processor())

    @property
    def option(self) -> str:
        """The current option: its name, or ``"by size"``."""
        return self.option_of(self.value)

    def option_on(self, processor: Processor) -> str:
        """Return the option that the rule chooses for a processor: its name, or ``"by size"``.

        Args:
            processor: The processor.
        """
        return self.option_of(self.rule(processor))

    def option_of(self, value: int) -> str:
        """Return the option with a value: its name, or ``"by size"``.

        Args:
            value: The value.
        """
        return next((name for name, own in self.options.items() if own == value), "by size")

    def describe(self, value: int) -> str:
        """Describe a value: ``"mkl"``, or ``"onednn from 8000000 multiplications on"``.

        Args:
            value: The value.
        """
        option = self.option_of(value)
        return option if option != "by size" else f"{[*self.options][-1]} from {value} {self.unit} on"

    def __repr__(self) -> str:
        return f"Choice({self.name!r}: {self.describe(self.value)})"


_entered: dict[str, Choice] = {}


class Choices(Mapping[str, Choice]):
    """The choices by name. Reading the table imports all modules that make choices."""

    def __getitem__(self, name: str) -> Choice:
        if name not in _entered:
            _enter_all()
        return _entered[name]

    def __iter__(self) -> Iterator[str]:
        _enter_all()
        return iter(_entered)

    def __len__(self) -> int:
        _enter_all()
        return len(_entered)


def _enter_all() -> None:
    kernels = import_module("funcnet.kernels")
    for found in walk_packages(kernels.__path__, "funcnet.kernels."):
        import_module(found.name)
    import_module("funcnet.compilation.inductor")


CHOICES = Choices()
"""All choices by name."""


def choice(name: str, options: Mapping[str, int], rule: Rule, unit: str = "") -> Choice:
    """Create and register a choice between kernels, when the module with the kernel is imported.

    Args:
        name: What is chosen.
        options: The value of each option by name, the one for large sizes last: ``{"mkl": NEVER, "onednn": 0}``.
        rule: Function that returns the value for a processor: an option's value, or a threshold.
        unit: What a threshold counts; if empty, only the values of options are allowed.

    Raises:
        ValueError: If the name is taken, or there are fewer than two options.
    """
    if name in _entered:
        raise value_error("choice", "each choice must have a unique name", repr(name))
    if len(options) < 2:
        raise value_error("choice", "a choice must have at least two options", repr(dict(options)))
    _entered[name] = Choice(name, options, rule, unit)
    return _entered[name]


def set_choice(name: str, option: str | int) -> None:
    """Set an option of a choice between kernels, for the whole process and for programs compiled from now on.

    Args:
        name: The choice, a key of ``CHOICES``.
        option: One of its options, ``"auto"`` for its rule, or a threshold in its unit.

    Raises:
        ValueError: For an unknown choice or option, and in code that is being compiled.

    >>> set_choice("matrix products", "mkl")
    >>> CHOICES["matrix products"].option
    'mkl'
    >>> set_choice("matrix products", "auto")
    """
    _refuse_in_compiled_code("set_choice", name)
    one = _find("set_choice", name)
    _take(one, _value("set_choice", one, option))


@contextmanager
def forced(name: str, option: str | int) -> Iterator[Choice]:
    """Set an option of a choice in a ``with`` block, and restore the previous one at its end; see ``set_choice``.

    Args:
        name: The choice, a key of ``CHOICES``.
        option: One of its options, ``"auto"`` for its rule, or a threshold in its unit.

    Yields:
        The ``Choice``.

    Raises:
        ValueError: For an unknown choice or option, and in code that is being compiled.

    >>> with forced("matrix products", "mkl") as one:
    ...     one.option
    'mkl'
    """
    _refuse_in_compiled_code("forced", name)
    one = _find("forced", name)
    before, value = one.value, _value("forced", one, option)
    _take(one, value)
    try:
        yield one
    finally:
        _take(one, before)


def _refuse_in_compiled_code(who: str, name: str) -> None:
    if is_compiling():  # Dynamo shows only the text of a plain ValueError
        raise ValueError(f"{who}: choices must be set outside of compiled code, got {name!r} within it")


def _find(who: str, name: str) -> Choice:
    if name not in CHOICES:
        raise value_error(who, f"the choice must be one of {', '.join(map(repr, CHOICES))}", repr(name))
    return CHOICES[name]


def _value(who: str, one: Choice, option: str | int) -> int:
    if type(option) is int and option >= 0 and one.unit:
        return option
    if option == AUTOMATIC:
        return one.automatic
    if not isinstance(option, str) or option not in one.options:
        names = ", ".join(map(repr, (AUTOMATIC, *one.options))) + f", or a number of {one.unit}" * bool(one.unit)
        raise value_error(who, f"the option of {one.name!r} must be one of {names}", repr(option))
    return one.options[option]


# A small number for each state of all choices, for keys of compiled programs: 0 if each has the value of its rule.
_states: dict[frozenset[tuple[str, int]], int] = {frozenset(): 0}
_state = [0]


def state() -> int:
    """Return a number that identifies the current values of all choices."""
    return _state[0]


def _take(one: Choice, value: int) -> None:
    one.value = value
    changed = frozenset((other.name, other.value) for other in _entered.values() if other.value != other.automatic)
    _state[0] = _states.setdefault(changed, len(_states))


def values_on(processor: Processor) -> dict[str, int]:
    """Return the value of each choice on a processor, by name."""
    return {name: one.rule(processor) for name, one in CHOICES.items()}
