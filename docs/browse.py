"""Open the built site in a real browser, at the width of a desktop and of a phone, and look for faults.

    python docs/browse.py out/site             needs Debian's chromium and chromium-driver, and the extra `browser`

For each page and width, the console must have no errors, the site itself must answer every request, and the page must not be
wider than the window. On a desktop no formula of the reference may be wider than its frame. A search for a name must find its
entry among the first three results. Screenshots, including dark ones, go to ``out/browser``. Prints every fault, and exits with
status 1 if there are any.
"""

import argparse
import base64
import functools
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

WIDTHS = {"desktop": (1280, 1000), "phone": (390, 844)}
PAGES = [
    "index",
    "start",
    "howto",
    "performance",
    "gallery",
    "differences",
    "results/benchmarks",
    "api/index",
    "api/attention",
    "api/linear_maps",
    "api/losses",
    "api/optimizers",
]
REFERENCE = [f"api/{page.stem}" for page in sorted((Path(__file__).parent / "api").glob("*.md"))]
"""Pages without a picture, opened on a desktop for their formulas."""
DARK = ["index", "howto", "performance", "api/losses"]
SEARCHES = {
    "Conv2d": "#funcnet.Conv2d",
    "AdamW": "#funcnet.AdamW",
    "cross entropy": "#funcnet.CrossEntropy",
    "freeze": "#funcnet.freeze",
}
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder on this machine, and yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@contextmanager
def browser(chromium: str, driver: str) -> Iterator[webdriver.Chrome]:
    """Start a headless browser, and yield it."""
    options = Options()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


class Visit:
    """A visit of the site at one width: it opens pages, takes pictures and collects faults."""

    def __init__(self, chrome: webdriver.Chrome, address: str, width: str, out: Path) -> None:
        """Set the size of the window."""
        self.chrome, self.address, self.width, self.out = chrome, address, width, out
        self.faults: list[str] = []
        across, down = WIDTHS[width]
        size = {"width": across, "height": down, "deviceScaleFactor": 1, "mobile": width == "phone"}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open(self, path: str) -> None:
        """Open a page, and collect its faults."""
        self.chrome.get(f"{self.address}/{path}")
        self.chrome.execute_script("return document.fonts.ready")
        self.faults += [f"{path}, {self.width}: {fault}" for fault in [*self.console(), *self.requests(), *self.overflow()]]

    def console(self) -> list[str]:
        """Return the errors and warnings of the console."""
        return [f"console: {row['message']}" for row in self.chrome.get_log("browser") if row["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> Iterator[str]:
        """Yield the requests that left the site or failed."""
        for row in self.chrome.get_log("performance"):
            event = json.loads(row["message"])["message"]
            answer = event["params"].get("response", {})
            url = answer.get("url", "")
            if event["method"] == "Network.responseReceived" and not url.startswith((self.address, "data:")):
                yield f"a request to {url}"
            elif answer.get("status", 200) >= 400:
                yield f"status {answer['status']} for {url}"

    def overflow(self) -> list[str]:
        """Return a fault if the page is wider than the window."""
        wide = self.chrome.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        return [f"{wide} pixels too wide"] * (wide > 0)

    def formulas(self) -> None:
        """Collect the formulas that have to be scrolled."""
        wide = "return [...document.querySelectorAll('.formula pre')].filter(p => p.scrollWidth > p.clientWidth)"
        found = self.chrome.execute_script(f"{wide}.map(p => p.innerText)")
        self.faults += [f"{self.chrome.current_url}, {self.width}: wider than its frame: {text}" for text in found]

    def picture(self, name: str) -> None:
        """Save a screenshot of the window."""
        data = self.chrome.execute_cdp_cmd("Page.captureScreenshot", {})["data"]
        (self.out / f"{name}_{self.width}.png").write_bytes(base64.b64decode(data))

    def dark(self) -> None:
        """Switch to the dark colors."""
        self.chrome.execute_script("document.body.dataset.theme = 'dark'")

    def search(self, words: str, wanted: str) -> None:
        """Search for words, and require an entry of the reference among the first three results."""
        self.open(f"search.html?q={words.replace(' ', '+')}")
        results: list[str] = []
        for _ in range(100):
            results = [one.get_attribute("href") or "" for one in self.chrome.find_elements(By.CSS_SELECTOR, "ul.search li > a")]
            if len(results) >= 3:
                break
            time.sleep(0.1)
        if not any(one.endswith(wanted) for one in results[:3]):
            self.faults.append(f"search for {words!r}, {self.width}: {wanted} is not among {results[:3]}")


def visit(visit: Visit) -> list[str]:
    """Go through the pages and searches at one width, and return the faults."""
    for path in PAGES:
        visit.open(f"{path}.html")
        visit.picture(path.replace("/", "_"))
    for path in REFERENCE if visit.width == "desktop" else []:
        visit.open(f"{path}.html")
        visit.formulas()
    for words, wanted in SEARCHES.items():
        visit.search(words, wanted)
    visit.picture("search")
    for path in DARK:
        visit.open(f"{path}.html")
        visit.dark()
        visit.picture(f"{path.replace('/', '_')}_dark")
    return visit.faults


def main(arguments: list[str] | None = None) -> int:
    """Browse the site in a folder, print the faults, and return the exit status."""
    parser = argparse.ArgumentParser(prog="docs/browse.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/browser"), help="the folder for pictures")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--driver", default="/usr/bin/chromedriver")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    with served(given.site) as address, browser(given.chromium, given.driver) as chrome:
        faults = [fault for width in WIDTHS for fault in visit(Visit(chrome, address, width, given.out))]
    opened = len(WIDTHS) * (len(PAGES) + len(SEARCHES) + len(DARK)) + len(REFERENCE)
    print(*faults, f"{opened} pages opened, {len(faults)} faults", sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
