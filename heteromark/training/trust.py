"""Refuse code that a policy file of unknown origin names.

A policy file holds the config of its run, and a config may name code by import path. So a file from
elsewhere could call anything that can be imported, such as `os:system`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from heteromark.config.models.run import RunConfig
from heteromark.runs.code import OWN, files_of
from heteromark.runs.files import sha256_of
from heteromark.runs.store import RunStore

TRUST_VARIABLE = "HETEROMARK_TRUST"  # set to 1: import whatever policy files name
# What a file may name without being trusted: environments of these packages.
_PACKAGES = ("pettingzoo", "mpe2", "smac", "smacv2", "smaclite", f"{OWN}.environment")
_FACTORY = re.compile(r"(raw_|parallel_)?env|[A-Z]\w*(Env\w*|SMAC)")
# Folders of the project for its own code.
OWN_FOLDERS = ("environments", "extensions")


class UntrustedCode(ValueError):
    """A policy file of unknown origin names code that it must not name."""


def require_trusted(config: RunConfig, path: Path) -> None:
    """Check that a policy file names only harmless code, or that its origin is known.

    The origin is known if the file is in the run store, or equals a file that a run of the store
    wrote. Harmless are the project's modules in environments/ and extensions/, and some packages of
    environments.

    Args:
        config: the config in the file.
        path: the file.

    Raises:
        UntrustedCode: it names other code, and the user has not agreed.
    """
    foreign = {key: named for key, named in config.import_paths.items() if not _is_harmless(named)}
    if not foreign or os.environ.get(TRUST_VARIABLE) == "1" or _is_from_store(path):
        return
    listed = ", ".join(f"{key} = {named!r}" for key, named in foreign.items())
    raise UntrustedCode(
        f"{path} was not written by a run of this store, and names code to import: {listed}. Read "
        "that code first. If you trust it and the file, add --trust to `heteromark evaluate`, or "
        f"set {TRUST_VARIABLE}=1; or put the code into environments/ and train the run here"
    )


def _is_harmless(named: str) -> bool:
    module, _, attribute = named.partition(":")
    if any(f"{module}.".startswith(f"{package}.") for package in _PACKAGES):
        return _FACTORY.fullmatch(attribute) is not None
    top = module.partition(".")[0]
    here = Path.cwd() / top
    return top in OWN_FOLDERS and all(
        source.file.is_relative_to(here) for source in files_of(module)
    )


def _is_from_store(path: Path) -> bool:
    store = RunStore()
    if path.resolve().is_relative_to(store.root.resolve()):
        return True
    digest = sha256_of(path)
    return any(digest in record.files.values() for record in store.finished())
