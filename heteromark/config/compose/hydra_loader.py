"""Compose config/ with Hydra, with agent configs as a group and all errors as ConfigErrors.

Differences from plain Hydra:

- The group `agent` provides the files of config/agents/ with their layers applied, so
  `agent=ppo_agent_sweep_lr_high` means the same as in `heteromark train`.
- The schema decides which keys exist: `key=value` needs no `+` for a key that no file sets, and an
  unknown key is a fault.
- Team configs are in one folder per task. `--config-name` also finds them without the folder, and
  their sections are at the root of the config.
- Every config gets the hydra node of config/config.yaml, even if it is not built on it.
- Faults are ConfigErrors that list the valid names.

Importing this module imports Hydra.
"""

from __future__ import annotations

import copy
import itertools
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import (
    CachingConfigRepository,
    ConfigRepository,
    IConfigRepository,
)
from hydra._internal.defaults_list import DefaultsList
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, Node, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from heteromark.config.compose.agent_group import AGENT_GROUP, AgentConfigs, register_resolvers
from heteromark.config.compose.limits import (
    MAX_JOBS,
    number_of_jobs,
    unparsable,
    unusable_sweep,
)
from heteromark.config.compose.presets import Presets, option_faults, options_of, presets_of
from heteromark.config.errors import ConfigError, Fault, config_error, nearest
from heteromark.config.files import require_readable
from heteromark.config.models.run import RunConfig
from heteromark.config.pettingllms.sections import TEAM_SECTIONS

AGENT_FOLDER = "agents"
TASK_FOLDERS = ("code", "math", "search", "stateful")
# Folders of config/ that are not groups.
NON_GROUPS = (AGENT_FOLDER, "schema", "ppo_trainer", *TASK_FOLDERS)
EXPERIMENT_GROUP = "experiment"  # not a section: its files set keys at the root
# The root key that selects a section's type. A file of the group sets it as `type`.
SELECTORS = {
    "environment": "env_type",
    "policy": "policy_type",
    "loss": "loss_type",
    "optimizer": "optimizer_type",
    "collector": "collector_type",
    "replay_buffer": "buffer_type",
}
COMMAND_LINE = "command line"
ROOT = "config"  # config/config.yaml, which holds the hydra node of all configs


class _Repository(ConfigRepository):
    """Hydra's repository with more ways to place a file's keys at the root of the config.

    `# @package` may be anywhere in a file's leading comment, and the sections of team configs
    always belong to the root.
    """

    def group_exists(self, config_path: str) -> bool:
        return super().group_exists(config_path.removeprefix("/"))

    def load_config(self, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        path = _path_in(source, config_path) if source and source.scheme() == "file" else None
        if path:  # refuse files that would crash or hang OmegaConf
            require_readable(Path(_display_path(path)))
        loaded = super().load_config(config_path)
        if not loaded or loaded.header.get("package"):
            return loaded
        if not isinstance(loaded.config, DictConfig):
            return loaded
        if path:
            loaded.header["package"] = _package_in(path)
        if loaded.header["package"]:
            return loaded
        if any(section in loaded.config for section in TEAM_SECTIONS):
            loaded.header["package"] = "_global_"
        elif keys := _root_keys(config_path, loaded):
            message = (
                f"{keys} would not be at the root of the config; add the line `# @package "
                "_global_` at the top of the file"
            )
            raise ConfigError([Fault(_display_path(path) if path else config_path, message)])
        return loaded


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which reports all command-line faults at once and uses the schema."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = _Repository(config_search_path)
        self._presets = Presets([])  # of the current command line

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a config. The values are not validated.

        Raises:
            ConfigError: the config cannot be composed.
        """
        config_name = self.full_name(config_name)
        parsed = self._checked(config_name, overrides)
        if run_mode is RunMode.RUN and (faults := list(_sweep_faults(parsed))):
            raise ConfigError(faults)
        with as_config_errors():
            tree = super().load_configuration(
                config_name,
                [self._as_forced(override) for override in parsed],
                run_mode,
                from_shell,
                validate_sweep_overrides,
            )
        _record_as_typed(tree, parsed)
        return tree

    def compute_defaults_list(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode
    ) -> DefaultsList:
        """Return the files that a config is composed of.

        Raises:
            ConfigError: the config cannot be composed.
        """
        config_name = self.full_name(config_name)
        self._checked(config_name, overrides)
        with as_config_errors():
            defaults_list = super().compute_defaults_list(config_name, overrides, run_mode)
        defaults_list.defaults = self._presets.in_order(defaults_list.defaults)
        return defaults_list

    def parse(self, overrides: list[str]) -> list[Override]:
        """Parse the overrides of a command line.

        Raises:
            ConfigError: all overrides that do not parse.
        """
        parser = OverridesParser.create(config_loader=self)
        parsed, faults = [], []
        for line in overrides:
            try:
                if not (detail := unparsable(line)):
                    (override,) = parser.parse_overrides([line])
                    parsed.append(override)
                    detail = unusable_sweep(override)
            except HydraException as error:
                detail = " ".join(str(error).split())
            if detail:
                faults.append(Fault(COMMAND_LINE, f"does not parse: {detail}", value=line))
        if faults:
            raise ConfigError(faults)
        if (jobs := number_of_jobs(parsed)) > MAX_JOBS:
            message = f"makes {jobs:,} jobs; a multirun has at most {MAX_JOBS:,}"
            raise ConfigError([Fault(COMMAND_LINE, message, value=" ".join(overrides))])
        return parsed

    def is_choice(self, override: Override) -> bool:
        """Return whether an override chooses a file of a group, rather than setting a value."""
        is_group = self.repository.group_exists(override.key_or_group)
        return is_group and not isinstance(override.value(), dict)

    def named_configs(self) -> list[str]:
        """Return the configs in config/ that --config-name accepts."""
        names = self.repository.get_group_options("", ObjectType.CONFIG)
        return [name for name in names if not name.startswith("_")]

    def team_configs(self) -> list[str]:
        """Return the team configs that --config-name accepts, as `math/math_L1_model`."""
        return [
            f"{folder}/{name}" for folder in TASK_FOLDERS for name in self.get_group_options(folder)
        ]

    def full_name(self, config_name: str | None) -> str | None:
        """Return the name of a config with its folder.

        Raises:
            ConfigError: several folders contain a config with this name.
        """
        if config_name is None or self.repository.config_exists(config_name):
            return config_name
        folders = [name for name in super().list_groups("") if name not in (AGENT_GROUP, "hydra")]
        paths = [f"{folder}/{config_name}" for folder in folders]
        found = [path for path in paths if self.repository.config_exists(path)]
        if len(found) > 1:
            message = f"is in several folders; choose one of {', '.join(found)}"
            raise ConfigError([Fault("--config-name", message, value=config_name)])
        return found[0] if found else config_name

    def list_groups(self, parent_name: str) -> list[str]:
        """Return the groups below a folder."""
        groups = super().list_groups(parent_name)
        return [name for name in groups if parent_name or name not in NON_GROUPS]

    def groups(self) -> dict[str, list[str]]:
        """Return the options of every group of the project."""
        names = [name for name in self.list_groups("") if name[0] != "_" and name != "hydra"]
        options = {name: self.get_group_options(name) for name in sorted(names)}
        return {name: found for name, found in options.items() if found}

    def file_of(self, config_path: str) -> str:
        """Return the file of a config such as `policy/large`, relative to the working directory."""
        for source in self.repository.get_sources():
            if not source.is_config(config_path):
                continue
            if isinstance(source, AgentConfigs):
                path = source.file_of(config_path.rpartition("/")[2])
            else:
                path = _path_in(source, config_path)
            return _display_path(path) if path else config_path
        return config_path

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed, repo = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        if config_name is not None:  # None: Hydra lists the options of a group
            self._presets = presets_of(repo, config_name, parsed, self.file_of)
            parsed = self._presets.overrides
        return parsed, repo

    def _compose_config_from_defaults_list(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        ordered = self._presets.in_order(defaults)
        composed = super()._compose_config_from_defaults_list(ordered, repo)
        composed.update(self._types_chosen_later(ordered, repo))
        return composed

    def _types_chosen_later(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> Iterator[tuple[str, str]]:
        """Yield selector and type of the files that an experiment or the command line chose.

        They override a selector that the named config sets.
        """
        for group, selector in SELECTORS.items():
            later = self._presets.after_choice(group, defaults)
            if later is None:
                continue
            of_group = [
                each for each in defaults if (each.config_path or "").startswith(f"{group}/")
            ]
            types = self._values_in(of_group, selector, repo)
            is_literal = bool(types) and "${" not in types[-1]
            if is_literal and not self._values_in(later, selector, repo):
                yield selector, types[-1]

    def _values_in(
        self, files: list[ResultDefault], key: str, repo: IConfigRepository
    ) -> list[str]:
        """Return the unresolved values of a key in the files of a defaults list."""
        values = (
            _unresolved(_content(self._load_single_config(file, repo)), key) for file in files
        )
        return [value for value in values if value]

    def type_faults(self, tree: DictConfig) -> Iterator[Fault]:
        """Yield a fault for each chosen file whose type is set neither in it nor elsewhere."""
        for group, selector in SELECTORS.items():
            option = tree.hydra.runtime.choices.get(group)
            if option is None or selector in tree:
                continue
            message = (
                f"does not set {selector}; add a line `type: NAME`, or list a file that has "
                f"one under `defaults:`. NAME is one of {', '.join(_built_in(selector))}"
            )
            yield Fault(self.file_of(f"{group}/{option}"), message)

    def content_of(self, default: ResultDefault) -> DictConfig:
        """Return what a file of the defaults list adds to the config."""
        return _content(self._load_single_config(default, self.repository))

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        config_path = default.config_path
        assert config_path is not None, "as in Hydra's own `_load_single_config`"
        loaded = repo.load_config(config_path)
        if loaded and not isinstance(loaded.config, DictConfig):
            file = self.file_of(config_path)
            message = f"Config file must contain a dictionary/object: {file}"
            raise ConfigError(
                [Fault(file, f"{message}; write `key: value` lines at the top level")]
            )
        result = super()._load_single_config(default, repo)
        config = _with_selectors(_content(result), self.file_of(config_path))
        root = repo.load_config(ROOT) if repo.config_exists(ROOT) else None
        if config_path == "hydra/config" and root is not None:
            with open_dict(config):
                config.merge_with({"hydra": _content(root).get("hydra") or {}})
        result = copy.copy(result)  # the repository caches the loaded config
        result.config = config
        return result

    def _as_forced(self, override: Override) -> str:
        """Write a plain `key=value` as `++key=value`: the schema checks the key, not Hydra."""
        is_plain = override.type is OverrideType.CHANGE and override.package is None
        if is_plain and not override.is_hydra_override() and not self.is_choice(override):
            return f"++{_line(override)}"
        return _line(override)

    def _checked(self, config_name: str | None, overrides: list[str]) -> list[Override]:
        """Parse the overrides; raise ConfigError unless the config and all options exist."""
        parsed = self.parse(overrides)
        if faults := [*self._name_faults(config_name), *self._choice_faults(parsed)]:
            raise ConfigError(faults)
        return parsed

    def _name_faults(self, config_name: str | None) -> Iterator[Fault]:
        if config_name is None or self.repository.config_exists(config_name):
            return
        known = [*self.named_configs(), *self.team_configs()]
        message = (
            f"unknown config.{nearest(config_name, known)} Available: {', '.join(known)}. To add "
            "one, create config/NAME.yaml"
        )
        yield Fault("--config-name", message, value=config_name)

    def _choice_faults(self, overrides: list[Override]) -> Iterator[Fault]:
        added = [override for override in overrides if override.is_add()]
        for key in {override.get_key_element() for override in added if self.is_choice(override)}:
            same = [each for each in added if each.get_key_element() == key]
            if len(same) > 1:
                options = ",".join(itertools.chain.from_iterable(map(options_of, same)))
                message = f"is added {len(same)} times; write {key}=[{options}]"
                yield Fault(COMMAND_LINE, message, key)
        for override in overrides:
            group = override.key_or_group
            if override.is_hydra_override() or not self.is_choice(override):
                continue
            if group in NON_GROUPS:
                is_task = group in TASK_FOLDERS
                instead = f"--config-name={group}/NAME" if is_task else f"{AGENT_GROUP}=NAME"
                message = f"is not a group; write {instead}"
                yield Fault(COMMAND_LINE, message, group, override.value())
                continue
            chosen = options_of(override)
            yield from option_faults(self.repository, group, chosen, COMMAND_LINE, group)


class ProjectHydra(Hydra):
    """Hydra with the loader of this project."""

    config_loader: Loader


def open_hydra(config_folder: Path, additional: Path | None = None) -> ProjectHydra:
    """Initialise Hydra for a folder of configs.

    Args:
        config_folder: the project's config/.
        additional: a folder with further configs and options, searched last.

    Raises:
        ConfigError: a folder does not exist.
    """
    folders = {"main": Path(config_folder), "--config-dir": additional and Path(additional)}
    missing = [folder for folder in folders.values() if folder and not folder.is_dir()]
    if missing:
        message = (
            f"Config folder not found: {missing[0]}; run this in the project folder, which "
            "contains config/"
        )
        raise config_error([Fault(str(missing[0]), message, kind="FileNotFoundError")])
    version.setbase("1.3")
    register_resolvers()
    Plugins.instance().register(AgentConfigs)
    search_path = create_config_search_path(str(config_folder.resolve()))
    schema = SearchPathQuery(provider="schema")
    agents = (config_folder / AGENT_FOLDER).resolve()
    search_path.prepend(AGENT_GROUP, f"{AgentConfigs.scheme()}://{agents}", schema)
    if additional:
        search_path.prepend("command-line", f"file://{additional.resolve()}", schema)
    hydra = ProjectHydra(task_name="factory_train", config_loader=Loader(search_path))
    GlobalHydra.instance().clear()
    GlobalHydra.instance().initialize(hydra)
    return hydra


def command_line_overrides(tree: DictConfig) -> list[str]:
    """Return the overrides that a config was composed with, unresolved, without Hydra's own."""
    lines: Any = OmegaConf.to_container(tree.hydra.overrides.task, resolve=False)
    return lines


@contextmanager
def as_config_errors() -> Iterator[None]:
    """Convert errors of Hydra, OmegaConf and the YAML parser to ConfigErrors.

    Hydra's warning about a defaults list without `_self_` is suppressed: the file's own values win.

    Raises:
        ConfigError: names the file if it is known.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Defaults list is missing `_self_`")
            yield
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        file = error.problem_mark.name if error.problem_mark else "config"
        detail = " ".join(str(error).split())
        raise ConfigError([Fault(file, f"Config file does not parse: {detail}")]) from error
    except InterpolationResolutionError as error:
        detail = str(error).splitlines()[0]
        message = f"cannot be resolved: {detail}; fix the reference, or add the key it refers to"
        raise ConfigError([Fault("config", message, error.full_key or "")]) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        causes = [str(error), str(error.__cause__ or "")]
        detail = " ".join(" ".join(causes).partition("Config search path:")[0].split())
        raise ConfigError([Fault("config", detail)]) from error


def _path_in(source: ConfigSource, config_path: str) -> Path:
    return Path(source.path, f"{config_path.removesuffix('.yaml')}.yaml")


def _display_path(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _package_in(path: Path) -> str | None:
    """Return the package in a `# @package` line of a file's leading comment."""
    with path.open(encoding="utf-8") as lines:
        comment = itertools.takewhile(lambda line: line.lstrip()[:1] in ("", "#"), lines)
        found = (re.match(r"\s*#\s*@package\s+(\S+)\s*$", line) for line in comment)
        return next((match[1] for match in found if match), None)


def _content(result: ConfigResult) -> DictConfig:
    """Return the content of a config, which is a mapping."""
    assert isinstance(result.config, DictConfig), "`_load_single_config` refuses all others"
    return result.config


def _line(override: Override) -> str:
    """Return an override as typed."""
    assert override.input_line is not None, "set by Hydra's parser"
    return override.input_line


def _root_keys(config_path: str, loaded: ConfigResult) -> str:
    """Return the keys of a group's file that belong at the root of the config; empty: none."""
    group, content = config_path.partition("/")[0], _content(loaded)
    if group == EXPERIMENT_GROUP:
        overridden = [
            f"override {each.group}"
            for each in loaded.defaults_list or ()
            if isinstance(each, GroupDefault) and each.is_override()
        ]
        return ", ".join([*overridden, *map(str, content)])
    return ", ".join(key for key in (group, SELECTORS.get(group)) if key and key in content)


def _unresolved(config: DictConfig, key: str) -> Any:
    """Return the value of a key, references unresolved; None if it is missing."""
    node = config._get_node(key) if key in config else None
    return node._value() if isinstance(node, Node) else None


def _built_in(selector: str) -> list[str]:
    """Return the built-in names that a selector accepts."""
    schema = RunConfig.model_json_schema()["properties"][selector]
    return (schema.get("anyOf") or [schema])[0]["enum"]


def _with_selectors(config: DictConfig, file: str) -> DictConfig:
    """Turn `type: sgd` in the section optimizer into `optimizer_type: sgd` at the root."""
    config = copy.deepcopy(config)
    for section, selector in SELECTORS.items():
        content = None if OmegaConf.is_missing(config, section) else config._get_node(section)
        if not isinstance(content, DictConfig) or "type" not in content:
            continue
        kind = _unresolved(content, "type")
        if _unresolved(config, selector) not in (None, kind):
            message = f"contradicts {selector}; remove one of the two"
            raise ConfigError([Fault(file, message, f"{section}.type", kind)])
        with open_dict(config):
            del content["type"]
            config[selector] = kind
    return config


def _record_as_typed(tree: DictConfig, overrides: list[Override]) -> None:
    """Record the overrides in .hydra/overrides.yaml as typed, not as passed to Hydra."""
    typed = [override for override in overrides if not override.is_hydra_override()]
    of_hydra = [override for override in overrides if override.is_hydra_override()]
    naming = tree.hydra.job.config.override_dirname
    with open_dict(tree.hydra):
        tree.hydra.overrides.task = [_line(override) for override in typed]
        tree.hydra.overrides.hydra = [_line(override) for override in of_hydra]
        tree.hydra.job.override_dirname = get_overrides_dirname(
            typed, naming.exclude_keys, naming.item_sep, naming.kv_sep
        )


def _sweep_faults(overrides: list[Override]) -> Iterator[Fault]:
    for override in overrides:
        if override.is_sweep_override():
            key, _, value = _line(override).partition("=")
            message = (
                f"has several values; add --multirun to run each, write {key}=[…] for a list, or "
                "quote it if it is a string"
            )
            yield Fault(COMMAND_LINE, message, key, value)
