"""The pages as a user sees them: `heteromark ui` in a separate process, and a browser."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright
from projects import ROOT

from heteromark.ui.views.list import COLUMNS

# As Debian, Ubuntu and Google call it.
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
SCREENSHOTS_VARIABLE = "HETEROMARK_SCREENSHOTS"
# When a page is opened directly, Streamlit looks for its server below the address of the page first.
# The browser logs these two failed requests.
PROBES = re.compile(r"/_stcore/(health|host-config)$")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*options: str, folder: Path = ROOT) -> tuple[str, subprocess.Popen]:
    """Start `heteromark ui`; return its address, without a path, and the process."""
    port = free_port()
    command = [sys.executable, "-m", "heteromark", "ui", "--port", str(port), "--no-browser"]
    process = subprocess.Popen(
        [*command, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).close()
            return f"http://localhost:{port}", process
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def serving(store: Path, results: Path, folder: Path = ROOT) -> Iterator[str]:
    """Serve the pages for a store and a results folder; yields the address."""
    for path in (store, results):
        path.mkdir(parents=True, exist_ok=True)
    address, process = start("--store", str(store), "--results", str(results), folder=folder)
    try:
        yield address
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
        assert "Traceback" not in output, output


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


# Widths of the list's columns, left to right, without the progress column.
COLUMN_WIDTHS = {
    column["label"]: column["width"] for name, column in COLUMNS.items() if name != "progress"
}

READ_TABLE = """grid => {
  const names = [...grid.querySelectorAll("th")].map(cell => cell.textContent);
  return [...grid.querySelectorAll("tbody tr")].map(row => Object.fromEntries(
    [...row.querySelectorAll("td")].map((cell, index) => [names[index], cell.textContent])));
}"""


HEIGHT_IS_STABLE = """() => {
  const height = document.querySelector('[data-testid="stMainBlockContainer"]').scrollHeight;
  const now = performance.now();
  if (window.hmSeen?.height !== height) window.hmSeen = {height, since: now};
  return now - window.hmSeen.since > 400;
}"""


@dataclass
class Reader:
    """A browser page that collects errors, dialogs and requests to other servers."""

    page: Page
    address: str
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.on("websocket", lambda socket: self._check(socket.url))

    def open(self, path: str) -> None:
        """Open a page and wait until it is drawn."""
        self.page.goto(self.address + path)
        self.page.locator(".hm-heading h1").wait_for()
        self.settle()

    def settle(self) -> None:
        """Wait until the script has finished and the layout no longer moves.

        While the page grows, a click could press one element and release on another.
        """
        self.page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
        self.page.wait_for_function(HEIGHT_IS_STABLE)
        assert self.page.locator('[data-testid="stException"]').count() == 0, self.text()

    def text(self) -> str:
        return self.page.locator('[data-testid="stMain"]').inner_text()

    def wait_for_text(self, words: str) -> None:
        expect(self.page.locator('[data-testid="stMain"]')).to_contain_text(words)

    def rows(self, table: int = 0) -> list[dict[str, str]]:
        """Return the rows of a table by column title; numbers are unformatted."""
        grid = self.page.locator('[data-testid="stDataFrame"] table[role="grid"]').nth(table)
        grid.locator("tbody tr").first.wait_for(state="attached")
        return grid.evaluate(READ_TABLE)

    def tick(self, row: int) -> None:
        """Tick a row of the first table."""
        canvas = self.page.locator('[data-testid="stDataFrame"] canvas').first
        canvas.evaluate("canvas => canvas.scrollIntoView({block: 'center'})")
        box = canvas.bounding_box()
        self.page.mouse.click(box["x"] + 16, box["y"] + 35 * (row + 1) + 17)

    def click_header(self, name: str) -> None:
        """Click on a column header of the first table."""
        canvas = self.page.locator('[data-testid="stDataFrame"] canvas').first
        box = canvas.bounding_box()
        x = box["x"] + 35  # width of the tick-box column
        for title, width in COLUMN_WIDTHS.items():
            if title == name:
                self.page.mouse.click(x + width / 3, box["y"] + 17)
                return
            x += width
        raise ValueError(name)

    def picture(self, folder: Path, name: str) -> None:
        """Save a screenshot of the whole page, as an artefact of the test."""
        folder = Path(os.environ.get(SCREENSHOTS_VARIABLE) or folder)
        folder.mkdir(parents=True, exist_ok=True)
        height = self.page.locator('[data-testid="stMainBlockContainer"]').bounding_box()["height"]
        size = self.page.viewport_size
        self.page.set_viewport_size({"width": size["width"], "height": max(900, int(height) + 60)})
        self.page.wait_for_timeout(700)  # charts adapt to the new size
        self.page.screenshot(path=folder / f"{name}.png")
        self.page.set_viewport_size(size)

    def _console(self, message) -> None:
        if message.type == "error" and not PROBES.search(message.location.get("url", "")):
            self.problems.append(f"console: {message.text}")

    def _dialog(self, dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request) -> None:
        self._check(request.url)

    def _check(self, url: str) -> None:
        local = self.address.partition("://")[2]
        inside = url.startswith(("data:", "blob:")) or url.partition("://")[2].startswith(local)
        if not inside:
            self.problems.append(f"request to another server: {url}")


@contextlib.contextmanager
def reading(browser: Browser, address: str) -> Iterator[Reader]:
    """Yield a reader with a new browser profile; fails at the end if it collected problems."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    reader = Reader(context.new_page(), address)
    try:
        yield reader
    except BaseException as error:
        error.add_note(f"the page at {reader.page.url}:\n{reader.text()}")
        raise
    finally:
        context.close()
    assert reader.problems == []
