"""The server `heteromark ui`: addresses, errors, shutdown, imports."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from projects import ROOT
from serving import free_port, start

from heteromark.ui.server import RESULTS_VARIABLE, UiError, address, serve

DOCUMENT = ROOT / "docs" / "history.md"


def test_server_listens_on_localhost_only_and_stops_on_ctrl_c(tmp_path):
    where, process = start(folder=tmp_path)
    port = int(where.rpartition(":")[2])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/training", timeout=10) as answer:
        assert answer.status == 200
    with socket.socket() as outside, pytest.raises(ConnectionRefusedError):
        outside.connect((own_address(), port))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode in (0, 130)
    assert output.splitlines()[0] == f"Training History: {where}/training (press ctrl-C to stop)"
    assert "Traceback" not in output


def own_address() -> str:
    """Return an address of this machine that is not loopback (127.0.0.0/8)."""
    addresses = {
        info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    }
    return next((found for found in addresses if not found.startswith("127.")), "127.0.0.2")


def test_port_in_use_is_an_error(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UiError, match=rf"port {port} of 127.0.0.1 is in use.*--port"):
            serve("127.0.0.1", port, None, None, browser=False)


def test_command_prints_one_error_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "heteromark", "ui", "--port", str(port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(rf"error: port {port} of 127.0.0.1 is in use.*\n", done.stderr)


@pytest.mark.parametrize("option", ["store", "results"])
def test_missing_folder_is_an_error(tmp_path, option):
    folders = {"store": None, "results": None, option: tmp_path / "none"}
    with pytest.raises(UiError, match=rf"--{option} .*none: no such folder"):
        serve("127.0.0.1", free_port(), **folders, browser=False)


def test_foreign_address_is_an_error():
    with pytest.raises(UiError, match=r"cannot listen on 203\.0\.113\.1"):
        serve("203.0.113.1", free_port(), None, None, browser=False)


def test_without_streamlit_the_error_names_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UiError, match="pip install streamlit"):
        serve("127.0.0.1", free_port(), None, None, browser=False)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://localhost:5173/training"),
        ("localhost", "http://localhost:5173/training"),
        ("0.0.0.0", "http://localhost:5173/training"),
        ("192.0.2.7", "http://192.0.2.7:5173/training"),
    ],
)
def test_printed_address(host, expected):
    assert address(host, 5173) == expected


def test_pages_never_import_torch(three_seeds, tmp_path, monkeypatch):
    """Import every module and draw the list."""
    script = """
import importlib, pkgutil, sys
from streamlit.testing.v1 import AppTest
import heteromark.ui
for module in pkgutil.iter_modules(heteromark.ui.__path__):
    if module.name != "app":
        importlib.import_module(f"heteromark.ui.{module.name}")
page = AppTest.from_file(sys.argv[1], default_timeout=60).run()
assert not page.exception, page.exception
assert len(page.dataframe[0].value) == 3
print(sorted({"torch", "torchrl", "tensordict", "matplotlib"} & set(sys.modules)))
"""
    monkeypatch.setenv(RESULTS_VARIABLE, str(tmp_path))
    app = ROOT / "heteromark" / "ui" / "app.py"
    command = [sys.executable, "-c", script, str(app)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
def test_every_command_in_the_document_works(tmp_path, monkeypatch):
    """Run the commands unchanged, except for a free port and no browser."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache" / "heteromark" / "store").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    commands = "".join(blocks).splitlines()
    assert len(commands) == 3
    for command in commands:
        assert command.startswith("heteromark ui")
        options = re.sub(r"--port \d+|--no-browser", "", command.removeprefix("heteromark ui"))
        options = options.replace("~", str(tmp_path)).split()
        _, process = start(*options, folder=tmp_path)
        process.terminate()
        process.communicate(timeout=30)


def test_only_the_command_line_imports_the_pages():
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "heteromark").rglob("*.py")
        if re.search(r"^\s*(from|import) heteromark\.ui", path.read_text("utf-8"), re.MULTILINE)
    }
    outside = {path for path in importers if not path.startswith("heteromark/ui/")}
    assert outside == {"heteromark/cli.py"}
