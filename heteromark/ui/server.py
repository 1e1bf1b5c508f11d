"""`heteromark ui`: start Streamlit with the Training History pages."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import socket
import sys
import threading
from pathlib import Path

from heteromark.runs.store import STORE_VARIABLE
from heteromark.ui.drawing.style import THEME

APP = Path(__file__).with_name("app.py")
# Results folder of the pages; default: results/ in the working directory.
RESULTS_VARIABLE = "HETEROMARK_RESULTS"


class UiError(Exception):
    """The pages cannot be served; the message says how to fix it."""


def serve(host: str, port: int, store: Path | None, results: Path | None, browser: bool) -> None:
    """Serve the pages until ctrl-C, which ends this process.

    Args:
        host: address to listen on.
        store, results: run store and results folder; None: the defaults.
        browser: open a browser if there is a screen.

    Raises:
        UiError: the port is in use, a folder is missing, or Streamlit is not installed.
    """
    for option, folder in (("--store", store), ("--results", results)):
        if folder is not None and not folder.is_dir():
            raise UiError(f"{option} {folder}: no such folder")
    for package in ("streamlit", "altair"):
        if importlib.util.find_spec(package) is None:
            raise UiError(
                f"the pages need {package}, which is not installed. Run `pip install {package}`, "
                "or `make setup` for the exact versions of this project."
            )
    _check_port(host, port)
    if store is not None:
        os.environ[STORE_VARIABLE] = str(store.resolve())
    if results is not None:
        os.environ[RESULTS_VARIABLE] = str(results)
    print(f"Training History: {address(host, port)} (press ctrl-C to stop)", flush=True)
    options = [f"--{name}={value}" for name, value in _settings(host, port, browser)]
    threading.Thread(target=_preload, daemon=True).start()
    from streamlit.web.cli import main

    sys.argv = ["streamlit", "run", str(APP), *options]
    main()


def _preload() -> None:
    """Import the modules of the first page while the browser loads."""
    import pyarrow  # noqa: F401

    import heteromark.ui.data.signs
    import heteromark.ui.drawing.sweep_charts  # noqa: F401


def address(host: str, port: int) -> str:
    """Return the address of the list, as seen from this machine."""
    name = "localhost" if _is_loopback(host) or host in ("0.0.0.0", "::") else host
    return f"http://{name}:{port}/training"


def _settings(host: str, port: int, browser: bool) -> list[tuple[str, object]]:
    """Return Streamlit's options, all explicit, so that they override the user's own settings."""
    settings = [
        ("server.address", host),
        ("server.port", port),
        ("server.headless", "false" if browser else "true"),
        ("server.fileWatcherType", "none"),
        ("server.showEmailPrompt", "false"),
        ("browser.gatherUsageStats", "false"),
        ("client.toolbarMode", "minimal"),
        ("client.showErrorLinks", "false"),
        ("logger.hideWelcomeMessage", "true"),
        ("logger.level", "warning"),
        *THEME.items(),
    ]
    if _is_loopback(host):
        # Against DNS rebinding: another site's name that resolves to this machine.
        settings += [("server.allowedHosts", name) for name in ("localhost", "127.0.0.1", host)]
        settings.append(("browser.serverAddress", "localhost"))
    return settings


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_port(host: str, port: int) -> None:
    """Raise UiError if the server cannot listen on this address."""
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} of {host} is in use, perhaps by another `heteromark ui`"
        else:
            message = f"cannot listen on {host}, port {port}: {error.strerror or error}"
        raise UiError(f"{message}; choose another with --port or --host") from error
