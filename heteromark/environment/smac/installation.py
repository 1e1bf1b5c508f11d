"""What SMAC and SMACv2 need to be installed, and how to tell that it is not."""

from __future__ import annotations

import importlib.util
from types import TracebackType

_PACKAGES = ("smac", "smacv2")
_GAME = (
    "StarCraft II 4.10, with SC2PATH set to its folder (~/StarCraftII if not set) and the maps "
    "SMAC_Maps of SMACv2's repository in its folder Maps"
)
_NEEDS_NEITHER = "an environment that needs neither is environment=skirmish"
# where pysc2 looks for the game and its maps, and starts it
_STARTING = ("pysc2.run_configs", "pysc2.maps", "pysc2.lib.sc_process")


def how_to_install(module: str) -> str | None:
    """What a task in `module` needs, if that is SMAC or SMACv2 and not installed, else None."""
    package = module.partition(".")[0]
    if package not in _PACKAGES or importlib.util.find_spec(package):
        return None
    return (
        f'install the package with `pip install "git+https://github.com/oxwhirl/{package}.git"`, '
        f"and {_GAME}; {_NEEDS_NEITHER}"
    )


def why_it_did_not_start(error: Exception) -> str | None:
    """What to do if pysc2 raised `error` because it could not start StarCraft II, else None.

    pysc2 has no one error for that: besides its own it lets FileNotFoundError and ValueError pass.
    """
    if not _raised_within(error.__traceback__, _STARTING):
        return None
    return (
        f"StarCraft II could not be started ({type(error).__name__}: {error}); install {_GAME}; "
        f"{_NEEDS_NEITHER}"
    )


def _raised_within(traceback: TracebackType | None, modules: tuple[str, ...]) -> bool:
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith(modules):
            return True
        traceback = traceback.tb_next
    return False
