"""Provide agent configs to Hydra as the group `agent`, and the resolvers used in config/.

Importing this module imports Hydra.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from heteromark.config.compose.layers import resolve_agent
from heteromark.config.fields import NETWORK_OF_POLICY_TYPE, POLICY_TYPE_OF_NETWORK
from heteromark.config.files import SUFFIXES
from heteromark.config.models.algorithms import loss_of, selected_by

AGENT_GROUP = "agent"


class AgentConfigs(ConfigSource):
    """The files of config/agents/ as the group `agent`, each merged with its base and defaults.

    The selectors loss_type and policy_type override an agent config's algorithm and network.
    """

    @staticmethod
    def scheme() -> str:
        return "agents"

    def load_config(self, config_path: str) -> ConfigResult:
        path = self.file_of(config_path.rpartition("/")[2])
        assert path is not None, "Hydra only loads what `is_config` accepts"
        values = resolve_agent(path).agent.model_dump(mode="json")
        for key in ("name", "description"):  # plain text: escape ${…}
            values[key] = values[key].replace("${", "\\${")
        values["algorithm"] = f"${{selected_algorithm:{values['algorithm']}}}"
        values["network"]["policy"] = f"${{selected_network:{values['network']['policy']}}}"
        return ConfigResult(
            provider=self.provider,
            path=self.full_path(),
            config=OmegaConf.create(values),
            header={"package": None},
        )

    def file_of(self, name: str) -> Path | None:
        """Return the file of an agent config; None if it does not exist."""
        name = name.removesuffix(".yaml")
        paths = (Path(self.path, f"{name}{suffix}") for suffix in SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return config_path.rstrip("/") in ("", AGENT_GROUP)

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.partition("/")
        return group == AGENT_GROUP and bool(name) and self.file_of(name) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if not config_path:
            return [] if results_filter is ObjectType.CONFIG else [AGENT_GROUP]
        if results_filter is ObjectType.GROUP:
            return []
        return sorted({path.stem for path in Path(self.path).glob("*") if path.suffix in SUFFIXES})


def register_resolvers() -> None:
    """Register the resolvers of `${loss_of:…}` and similar references in config/."""
    resolvers: dict[str, Callable[..., Any]] = {
        "loss_of": loss_of,
        "policy_type_of": lambda network: POLICY_TYPE_OF_NETWORK.get(network, network),
        "selected_algorithm": _selected_algorithm,
        "selected_network": _selected_network,
        "quotient": lambda dividend, divisor: dividend // divisor,
        "product": lambda *factors: math.prod(factors),
        "larger": _larger,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _selected_algorithm(of_agent: str, *, _root_: DictConfig) -> str:
    """Return the algorithm that loss_type selects; the agent config's if loss_type is not set.

    A custom algorithm, given by its import path, works with any loss.
    """
    return selected_by(str(_explicit_value(_root_, "loss_type")), of_agent)


def _selected_network(of_agent: str, *, _root_: DictConfig) -> str:
    """Return the network selected by policy_type; an import path selects a custom network."""
    selected = _explicit_value(_root_, "policy_type")
    if isinstance(selected, str) and ":" in selected:
        return selected
    return NETWORK_OF_POLICY_TYPE.get(selected, of_agent)


def _larger(*values: Any) -> Any:
    """Return the largest number; non-numbers are skipped, because their own key is checked."""
    return max(value for value in values if isinstance(value, int | float))


def _explicit_value(tree: DictConfig, key: str) -> Any:
    """Return the value of a selector; None if it is derived from the agent config."""
    return None if OmegaConf.is_interpolation(tree, key) else tree.get(key)
