"""Let files added on the command line (`+experiment=NAME`) override the named config.

In plain Hydra, the primary config's group overrides win over those of an added file. So an
experiment's `override /optimizer: sgd` has no effect on a named config that overrides the optimizer
itself, and the named config's values win over those of the files that the experiment chooses. Here,
later wins: named config < experiment < command line. Hydra determines what the added files
override; this module passes these choices to Hydra as if they were given on the command line.

Importing this module imports Hydra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import Overrides, _create_defaults_list
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from heteromark.config.errors import ConfigError, Fault, nearest

TEAM_FOLDER = "team"  # folder in a group: the options for team configs
_TEAM_KEYS = ("base_models", "agent_policy_configs")


@dataclass(frozen=True)
class Choice:
    """An `override /group: option` in a file that the command line adds."""

    group: str
    options: tuple[str, ...]
    file: str  # path within config/, without .yaml


@dataclass(frozen=True)
class Presets:
    """A command line with the choices of its added files.

    Attributes:
        overrides: the overrides of the command line, then the choices of the added files.
        chosen: the choices of the added files, by group key.
        command_line_keys: the keys given on the command line itself.
    """

    overrides: list[Override]
    chosen: dict[str, Choice] = field(default_factory=dict)
    command_line_keys: frozenset[str] = frozenset()

    def in_order(self, defaults: list[ResultDefault]) -> list[ResultDefault]:
        """Return `defaults` with the files that an experiment chooses after the named config.

        The files that they inherit from keep their position, so the named config still overrides
        inherited values.
        """
        ordered = list(defaults)
        for choice in self.chosen.values():
            paths = {f"{choice.group}/{option}" for option in choice.options}
            own = [each for each in ordered if each.is_self and each.config_path in paths]
            rest = [each for each in ordered if each not in own]
            index = self._index(choice, rest)
            if own and index > ordered.index(own[0]):
                ordered = [*rest[:index], *own, *rest[index:]]
        return ordered

    def after_choice(self, group: str, defaults: list[ResultDefault]) -> list[ResultDefault] | None:
        """Return the files that may override an option's type: those from the one that chose it.

        Empty if the command line chose the option; None if the named config did.
        """
        if group in self.command_line_keys:
            return []
        choice = self.chosen.get(group)
        return None if choice is None else defaults[self._index(choice, defaults) :]

    def _index(self, choice: Choice, defaults: list[ResultDefault]) -> int:
        return [each.config_path for each in defaults].index(choice.file)


def presets_of(
    repo: IConfigRepository,
    config_name: str | None,
    overrides: list[Override],
    file_of: Callable[[str], str],
) -> Presets:
    """Read the files that a command line chooses, and the choices in those files.

    Args:
        repo: Hydra's config repository.
        config_name: the named config.
        overrides: the command line.
        file_of: returns the file of a config, for messages.

    Raises:
        ConfigError: all choices that have no effect.
    """
    choices = [override for override in overrides if _is_choice(repo, override)]
    if not choices:
        return Presets(overrides)
    of_team = [_of_team(repo, each) if each in choices else each for each in overrides]
    if of_team != overrides and _is_team(repo, config_name):
        overrides = of_team
        choices = [override for override in overrides if _is_choice(repo, override)]
    given = frozenset(override.get_key_element().lstrip("+~") for override in overrides)
    chosen = {key: choice for key, choice in _chosen_by(repo, choices) if key not in given}
    overrides = [_absolute(each) if each in choices else each for each in overrides]
    lines = [_line(key, choice.options) for key, choice in chosen.items()]
    from_files = OverridesParser.create().parse_overrides(lines)
    presets = Presets([*overrides, *from_files], chosen, given)
    faults = list(_choice_faults(repo, chosen.values(), file_of))
    if faults := faults or list(_unused_faults(repo, config_name, presets, file_of)):
        raise ConfigError(faults)
    return presets


def _is_choice(repo: IConfigRepository, override: Override) -> bool:
    """Return whether an override chooses one or several files of a group."""
    if override.is_sweep_override() or override.is_delete():
        return False
    return repo.group_exists(override.key_or_group) and isinstance(override.value(), str | list)


def _absolute(override: Override) -> Override:
    """Look an added group up in config/, not in the folder of the named config."""
    if not override.is_add() or override.is_hydra_override():
        return override
    return replace(override, key_or_group=f"/{override.key_or_group}")


def _chosen_by(repo: IConfigRepository, added: Iterable[Override]) -> Iterator[tuple[str, Choice]]:
    """Yield the group overrides of the added files by group key; the last one wins."""
    overrides = Overrides(repo, [])
    for override in added:
        value = override.value()
        assert isinstance(value, str | list), "`_is_choice` accepts nothing else"
        overrides.append_group_defaults.append(
            GroupDefault(
                group=override.key_or_group,
                package=override.package,
                value=value,
                external_append=True,
            )
        )
    _create_defaults_list(repo, None, overrides, prepend_hydra=False, skip_missing=True)
    for key, value in overrides.override_choices.items():
        options = value if isinstance(value, list) else [value] if value else []
        file = str(overrides.override_metadata[key].containing_config_path)
        yield key, Choice(key.partition("@")[0], tuple(options), file)


def _choice_faults(
    repo: IConfigRepository, choices: Iterable[Choice], file_of: Callable[[str], str]
) -> Iterator[Fault]:
    for choice in choices:
        file, key = file_of(choice.file), f"override /{choice.group}"
        if repo.group_exists(choice.group):
            yield from option_faults(repo, choice.group, choice.options, file, key)
            continue
        known = repo.get_group_options("", ObjectType.GROUP)
        message = f"unknown group.{nearest(choice.group, known)}"
        yield Fault(file, message, key, ", ".join(choice.options))


def _unused_faults(
    repo: IConfigRepository,
    config_name: str | None,
    presets: Presets,
    file_of: Callable[[str], str],
) -> Iterator[Fault]:
    if not presets.chosen:
        return
    overrides = Overrides(repo, presets.overrides)
    _create_defaults_list(repo, config_name, overrides, prepend_hydra=True, skip_missing=True)
    for key, choice in presets.chosen.items():
        if not overrides.override_metadata[key].used:
            message = (
                f"has no effect: {config_name} does not use the group {key}; remove this line, and "
                "set the values directly in this file"
            )
            options = ", ".join(choice.options)
            yield Fault(file_of(choice.file), message, f"override /{key}", options)


def _line(key: str, options: Iterable[str]) -> str:
    """Return a choice as a command-line argument; without options, the group is removed."""
    quoted = ["'{}'".format(option.replace("'", "\\'")) for option in options]
    if not quoted:
        return f"~{key}"
    return f"{key}={quoted[0]}" if len(quoted) == 1 else f"{key}=[{','.join(quoted)}]"


def options_of(override: Override) -> list[str]:
    """Return the options that an override chooses, without `.yaml`.

    The list is empty for `~group` and `group=null`.
    """
    if override.is_sweep_override():
        values: list[object] = list(override.sweep_string_iterator())
    else:
        value = override.value()
        values = value if isinstance(value, list) else [value]
    return [str(value).removesuffix(".yaml") for value in values if value not in (None, "null")]


def option_faults(
    repo: IConfigRepository, group: str, options: Iterable[str], file: str, key: str
) -> Iterator[Fault]:
    """Yield a fault for each option that a group does not have.

    Args:
        file, key: where the options were chosen, for messages.
    """
    known = repo.get_group_options(group)
    for option in options:
        if not repo.config_exists(f"{group}/{option}"):
            message = f"unknown option.{nearest(option, known)}"
            yield Fault(file, f"{message} Available: {', '.join(known)}", key, option)


def _of_team(repo: IConfigRepository, override: Override) -> Override:
    """Replace the chosen options by those for team configs, where they exist."""
    group = override.key_or_group
    plain = options_of(override)
    team = [f"{TEAM_FOLDER}/{option}" for option in plain]
    exists = [repo.config_exists(f"{group}/{option}") for option in team]
    if not any(exists):
        return override
    options = [
        of_team if found else each for each, of_team, found in zip(plain, team, exists, strict=True)
    ]
    return OverridesParser.create().parse_override(_line(override.get_key_element(), options))


def _is_team(repo: IConfigRepository, config_name: str | None) -> bool:
    """Return whether a config is a team config, or builds on one."""
    overrides = Overrides(repo, [])
    composed, _ = _create_defaults_list(
        repo, config_name, overrides, prepend_hydra=False, skip_missing=True
    )
    files = [repo.load_config(default.config_path) for default in composed if default.config_path]
    return any(key in file.config for file in files if file for key in _TEAM_KEYS)
