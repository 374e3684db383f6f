"""Placeholder."""

from typing import Any, NamedTuple


class History(dict[str, list[Any]]):
    def copy(self):
        return History({k: [*v] for k, v in self.items()})

    def append(self, row):
        for name, number in row.items():
            self.setdefault(name, []).append(number)


class Fit(NamedTuple):
    params: Any
    state: Any
    history: History
