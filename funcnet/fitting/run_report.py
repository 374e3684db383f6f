"""The report of a run: one HTML file with its curves, its table, a confusion matrix and the net."""

import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from math import isfinite, isnan
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.contract import Layer
from funcnet.errors import describe, value_error
from funcnet.fitting.history import History, content_of
from funcnet.fitting.result import Fit
from funcnet.markup import STYLE, Markup, element, joined
from funcnet.outline import outline_of
from funcnet.saving.atomic import require_new_file, written_whole
from funcnet.saving.files import PathLike
from funcnet.summaries import summary, table_of

_PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 1080px; padding: 20px 16px 48px; font-family: system-ui, sans-serif;
       color: #1c1e21; background: #ffffff; }
@media (prefers-color-scheme: dark) { body { color: #e4e6ea; background: #17191c; } }
h1 { font-size: 24px; margin: 8px 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 32px 0 10px; }
p.versions { margin: 0 0 18px; font-size: 13px; opacity: 0.7; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; }
.fact { border: 1px solid rgba(128, 128, 128, 0.3); border-radius: 8px; padding: 8px 12px; }
.fact b { display: block; font-size: 18px; font-variant-numeric: tabular-nums; }
.fact span { font-size: 12px; opacity: 0.75; }
.funcnet .charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); gap: 14px 24px; }
.funcnet .chart { width: 100%; }
.funcnet table.matrix td { text-align: center; min-width: 28px; border: 1px solid rgba(128, 128, 128, 0.2); }
.funcnet table.matrix th { border: none; text-align: center; }
.funcnet table.matrix th.word { text-align: right; }
"""
_BETTER = {"loss": min, "accuracy": max}


class Fact(NamedTuple):
    """A number at the top of the report, and its label."""

    value: str
    words: str


def report(
    run: Fit | Mapping[str, Sequence[Any]],
    path: PathLike,
    *,
    net: Layer | None = None,
    x: Any = None,
    confusion: Tensor | str | None = None,
    classes: Sequence[str] | None = None,
    title: str = "Training report",
) -> Path:
    """Write a run as one HTML file: curves, the best epoch, seconds, versions, and, if given, a confusion matrix and the net.

    The file is self-contained, without external scripts, fonts or images, so it can be mailed and archived. It follows the
    reader's light or dark theme. An existing file is replaced atomically.

    Args:
        run: The result of ``fit``, or its history.
        path: The file to write, usually ending in ``.html``.
        net: The net. The report shows its ``summary`` if ``x`` is given, else an outline of its layers.
        x: An input of the net, or its shape, as for ``summary``.
        confusion: A matrix of counts or fractions, with a row for each true class; or the name of a column of such matrices in
            the history, of which the last is shown. By default the last column of matrices, if there is one.
        classes: Names of the classes, in order; by default their numbers.
        title: The title of the page.

    Returns:
        The path of the file.

    Raises:
        ValueError: If ``run`` has no epoch, ``net`` is not a layer, ``x`` is given without ``net``, ``confusion`` is neither a
            square matrix of finite numbers of at least 0 nor a column of these, or ``classes`` does not fit the matrix.
        OSError: If the folder is missing or the disk is full.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> report({"epoch": [1, 2], "loss": [0.9, 0.3]}, f"{folder.name}/run.html").name
    'run.html'
    >>> folder.cleanup()
    """
    file = require_new_file("report", path)
    history = _history(run)
    if not isinstance(title, str):
        raise value_error("report", "title must be a string", describe(title))
    parts = [_facts(run, history), _section("Curves and table", content_of(history, most=None))]
    parts += [*_confusion(history, confusion, classes), *_net(net, x)]
    page = _page(title, joined(parts))
    with written_whole("report", file) as opened:
        opened.write(page.encode())
    return file


def _history(run: Any) -> History:
    history = run.history if isinstance(run, Fit) else run
    if not isinstance(history, Mapping):
        raise value_error("report", "run must be the result of fit, or its history", describe(run))
    history = History(history)
    if not history.rows():
        raise value_error("report", "the history must have an epoch to show", "none")
    return history


def _page(title: str, body: Markup) -> str:
    head = element(
        "head",
        Markup('<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>'),
        element("title", title),
        element("style", Markup(STYLE + _PAGE_STYLE)),
    )
    own = import_module("funcnet").__version__
    versions = f"funcnet {own}, torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"
    top = joined([element("h1", title), element("p", versions, class_="versions")])
    return "<!DOCTYPE html>\n" + element("html", head, element("body", top, element("main", body, class_="funcnet")), lang="en")


def _section(title: str, *content: object) -> Markup:
    return element("section", element("h2", title), *content)


def _facts(run: Any, history: History) -> Markup:
    rows = history.rows()
    last = rows[-1].get("epoch")
    facts = [Fact(str(last if _is_number(last) else len(rows)), "epochs")]
    facts += [fact for name in history for fact in _best(history, name)]
    if isinstance(run, Fit):
        facts.append(Fact(f"{tree.size(run.params):,}", "numbers in params"))
    seconds = [value for value in history.get("seconds", []) if _is_number(value) and isfinite(value)]
    if seconds:
        facts.append(Fact(_time(sum(seconds)), f"of training, {_time(sum(seconds) / len(seconds))} per epoch"))
    shown = [element("div", element("b", fact.value), element("span", fact.words), class_="fact") for fact in facts]
    return element("div", *shown, class_="facts")


def _best(history: History, name: str) -> list[Fact]:
    """Return the best value of a loss or an accuracy, and its epoch; nothing for other columns or columns without a number."""
    better = _BETTER.get(name.removeprefix("validation_"))
    rows = [(row[name], row.get("epoch", i + 1)) for i, row in enumerate(history.rows()) if _is_number(row.get(name))]
    if better is None or not rows:
        return []
    value, epoch = better(rows, key=lambda row: row[0])
    return [Fact(f"{value:.4g}", f"best {name.replace('_', ' ')}, epoch {epoch}")]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isnan(value)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def _net(net: Any, x: Any) -> list[Markup]:
    if net is None and x is not None:
        raise value_error("report", "net must be given with x", "x only")
    if net is None:
        return []
    if not isinstance(net, Layer):
        raise value_error("report", "net must be a layer (a value with init, apply and vjp)", describe(net))
    shown = outline_of(net) if x is None else element("div", table_of(summary(net, x)), class_="scroll")
    return [_section("Net", shown)]


def _confusion(history: History, confusion: Any, classes: Any) -> list[Markup]:
    """Return the section of the confusion matrix, if there is one."""
    if confusion is None:
        columns = [name for name in history if _is_matrix(_last(history, name))]
        confusion = columns[-1] if columns else None
    if confusion is None:
        if classes is not None:
            raise value_error("report", "classes must be given with a confusion matrix", "none")
        return []
    name = confusion if isinstance(confusion, str) else "confusion matrix"
    matrix = _last(history, confusion) if isinstance(confusion, str) else confusion
    if not _is_matrix(matrix):
        rule = "confusion must be a square matrix of finite numbers of at least 0, or the name of a column of such matrices"
        raise value_error("report", rule, repr(confusion) if isinstance(confusion, str) else describe(confusion))
    names = _names(classes, len(matrix))
    return [_section(name.replace("_", " ").capitalize(), element("div", _matrix(matrix, names), class_="scroll"))]


def _last(history: History, name: str) -> Any:
    """Return the last value of a column; ``None`` if there is none."""
    column = history.get(name)
    return column[-1] if column else None


def _is_matrix(value: Any) -> bool:
    """Return whether a value is a dense square matrix of finite numbers of at least 0."""
    if not isinstance(value, Tensor) or value.is_nested or value.layout is not torch.strided:
        return False
    if value.is_meta or value.is_quantized or value.is_complex() or value.dim() != 2 or not value.shape[0] == value.shape[1] > 0:
        return False
    numbers = value.double()
    return bool(((numbers >= 0) & numbers.isfinite()).all())


def _names(classes: Any, count: int) -> list[str]:
    if classes is None:
        return [*map(str, range(count))]
    if isinstance(classes, str) or not isinstance(classes, Sequence) or len(classes) != count:
        raise value_error("report", f"classes must be a list of {count} names", describe(classes))
    return [*map(str, classes)]


def _matrix(matrix: Tensor, names: list[str]) -> Markup:
    """Return a table where each cell is shaded by its fraction of the row."""
    shares = (matrix.double() / matrix.double().sum(1, keepdim=True).clamp(min=1e-300)).tolist()
    rows = [_cells(name, *row) for name, *row in zip(names, matrix.tolist(), shares, strict=True)]
    head = element("tr", *[element("th", word, scope="col") for word in ("true \\ predicted", *names)])
    return element("table", element("thead", head), element("tbody", *rows), class_="matrix")


def _cells(name: str, values: list[Any], shares: list[float]) -> Markup:
    cells = [_cell(value, share) for value, share in zip(values, shares, strict=True)]
    return element("tr", element("th", name, class_="word", scope="row"), *cells)


def _cell(value: Any, share: float) -> Markup:
    words = f"{value:.3g}" if isinstance(value, float) and value != int(value) else f"{int(value):,}"
    return element("td", words, title=f"{share:.1%} of the row", style=f"background: rgba(59, 130, 196, {0.85 * share:.3f})")
