"""Open a report of a run and a page of notebook output in a real browser, and look for faults.

    python docs/browse_report.py               has the requirements of docs/browse.py

A small net is trained. Its report and its notebook page are opened at the width of a desktop and of a phone. The console must
have no errors, no page may request anything from outside or be wider than the window, each curve must be drawn, and a click must
unfold the table. Screenshots, including dark ones, go to ``out/browser``. Prints every fault, and exits with status 1 if there
are any.
"""

import argparse
import sys
from pathlib import Path

from browse import WIDTHS, Visit, browser
from selenium.webdriver.common.by import By

import funcnet as fn

CHARTS = 4
"""Loss, accuracy, norms and seconds."""


def write(folder: Path) -> None:
    """Train, and write the report and a page with the output of a notebook."""
    net = fn.serial(fn.Linear(8, 32), fn.residual(fn.LayerNorm(32) >> fn.Linear(32, 32) >> fn.GELU()), fn.Linear(32, 4))
    x = fn.random.normal(1, (400, 8))
    data = x, x[:, :4].argmax(1)
    metrics = [fn.Accuracy(), fn.ConfusionMatrix()]
    options = {"validation": data, "metrics": metrics, "norms": True, "progress": False}
    run = fn.fit(net, fn.CrossEntropy(), fn.Adam(lr=3e-3), data, epochs=25, batch_size=40, key=0, **options)
    classes = ["cat", "dog", "bird", "another animal"]
    fn.report(run, folder / "report.html", net=net, x=(64, 8), classes=classes, title="25 epochs")
    shown = [one._repr_html_() for one in (net, fn.summary(net, (64, 8)), run, fn.tree.describe(run.params))]
    head = '<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Notebook</title>'
    (folder / "notebook.html").write_text(f"{head}<body>{'<hr>'.join(shown)}</body>", encoding="utf-8")


def visit(visit: Visit) -> list[str]:
    """Open both pages at one width, and return the faults."""
    for name in ("report", "notebook"):
        visit.open(f"{name}.html")
        charts = len(visit.chrome.find_elements(By.CSS_SELECTOR, "svg.chart polyline, svg.chart circle:only-of-type"))
        if charts < CHARTS:
            visit.faults.append(f"{name}, {visit.width}: {charts} lines are drawn")
        folded = visit.chrome.find_elements(By.XPATH, "//details[summary='values of each epoch']")
        for one in folded:
            one.find_element(By.TAG_NAME, "summary").click()
        if not folded or not folded[0].find_element(By.TAG_NAME, "table").is_displayed():
            visit.faults.append(f"{name}, {visit.width}: the table of epochs does not unfold")
        visit.faults += [f"{name}, {visit.width}, unfolded: {fault}" for fault in visit.overflow()]
        visit.chrome.execute_script("window.scrollTo(0, 0)")
        visit.picture(name)
    visit.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    visit.open("report.html")
    visit.picture("report_dark")
    return visit.faults


def main(arguments: list[str] | None = None) -> int:
    """Write and browse the pages, print the faults, and return the exit status."""
    parser = argparse.ArgumentParser(prog="docs/browse_report.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/browser"), help="the folder for pages and pictures")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--driver", default="/usr/bin/chromedriver")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out)
    with browser(given.chromium, given.driver) as chrome:
        address = given.out.resolve().as_uri()
        faults = [fault for width in WIDTHS for fault in visit(Visit(chrome, address, width, given.out))]
    print(*faults, f"{3 * len(WIDTHS)} pages opened, {len(faults)} faults", sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
