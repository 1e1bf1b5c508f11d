"""How to tell that StarCraft II could not be started."""

from __future__ import annotations

from types import TracebackType

from heteromark.import_paths import STARCRAFT, WITHOUT_STARCRAFT

# where pysc2 looks for the game and its maps, and starts it
_STARTING = ("pysc2.run_configs", "pysc2.maps", "pysc2.lib.sc_process")


def why_it_did_not_start(error: Exception) -> str | None:
    """What to do if pysc2 raised `error` because it could not start StarCraft II, else None.

    pysc2 has no one error for that: besides its own it lets FileNotFoundError and ValueError pass.
    """
    if not _raised_within(error.__traceback__, _STARTING):
        return None
    return (
        f"StarCraft II could not be started ({type(error).__name__}: {error}); install "
        f"{STARCRAFT}; {WITHOUT_STARCRAFT}"
    )


def _raised_within(traceback: TracebackType | None, modules: tuple[str, ...]) -> bool:
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith(modules):
            return True
        traceback = traceback.tb_next
    return False
