"""What a run needs to be installed, found out without importing any of it."""

from __future__ import annotations

from pathlib import Path

from heteromark.config.errors import Fault
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.packages import package_faults
from heteromark.import_paths import how_to_install
from heteromark.runs.code import module_exists


def requirement_faults(config: RunConfig) -> list[Fault]:
    """Modules named by an import path, and logging back ends, that are not there."""
    faults = []
    for key, path in config.import_paths.items():
        module = path.partition(":")[0]
        if module_exists(module):
            continue
        file, folder = "config", "extensions/"
        if key.startswith("environment."):
            file, folder = f"config/environment/{config.environment.name}.yaml", "environments/"
        remedy = how_to_install(module) or f"install it, or put it into {folder}"
        faults.append(Fault(file, f"there is no module {module}; {remedy}", key, path))
    checkpoint = config.environment.skirmish.checkpoint
    if checkpoint is not None and not Path(checkpoint).is_file():
        faults.append(
            Fault(
                f"config/environment/{config.environment.name}.yaml",
                "there is no such file; name a run's checkpoint.pt or best.pt, for example "
                "results/model/checkpoint.pt",
                "environment.skirmish.checkpoint",
                checkpoint,
            )
        )
    return [*faults, *package_faults(config)]
