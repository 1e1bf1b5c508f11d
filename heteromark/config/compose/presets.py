"""What files that the command line adds (`+experiment=NAME`) choose, and where that is composed.

Hydra lets the primary config override groups before a file that is added to it. So the `override
/optimizer: sgd` of an experiment did nothing on a named config that overrides the optimizer itself,
and the values of a named config won over those of the files that an experiment chooses. Here the
order is that in which things are said: the named config, the experiment, the command line. Hydra
itself finds out what the added files override; this hands it that as choices of the command line.

Importing this imports Hydra.
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

TEAM_FOLDER = "team"  # within a group: the options that a team config takes instead
_TEAM_KEYS = ("base_models", "agent_policy_configs")


@dataclass(frozen=True)
class Choice:
    """An `override /group: option` of a file that the command line adds."""

    group: str
    options: tuple[str, ...]
    file: str  # path within config/, without .yaml


@dataclass(frozen=True)
class Presets:
    """What a command line means once its added files are read.

    Attributes:
        overrides: those of the command line, then the choices of the added files.
        chosen: by the key of the group.
        typed: keys of the command line itself.
    """

    overrides: list[Override]
    chosen: dict[str, Choice] = field(default_factory=dict)
    typed: frozenset[str] = frozenset()

    def in_order(self, defaults: list[ResultDefault]) -> list[ResultDefault]:
        """Let a file that an experiment chooses win over the named config.

        What it inherits stays where Hydra has it, so what the named config says of the rest holds.
        """
        ordered = list(defaults)
        for choice in self.chosen.values():
            paths = {f"{choice.group}/{option}" for option in choice.options}
            own = [each for each in ordered if each.is_self and each.config_path in paths]
            rest = [each for each in ordered if each not in own]
            place = self._place(choice, rest)
            if own and place > ordered.index(own[0]):
                ordered = [*rest[:place], *own, *rest[place:]]
        return ordered

    def after_choice(self, group: str, defaults: list[ResultDefault]) -> list[ResultDefault] | None:
        """What is said after a file of a group was chosen; None: the named config chose it."""
        if group in self.typed:
            return []
        choice = self.chosen.get(group)
        return choice and defaults[self._place(choice, defaults) :]

    def _place(self, choice: Choice, defaults: list[ResultDefault]) -> int:
        return [each.config_path for each in defaults].index(choice.file)


def presets_of(
    repo: IConfigRepository,
    config_name: str | None,
    overrides: list[Override],
    file_of: Callable[[str], str],
) -> Presets:
    """Read the files that a command line chooses, and what they choose in turn.

    Args:
        file_of: where a config lies, for messages.

    Raises:
        ConfigError: all choices that cannot act.
    """
    typed = [override for override in overrides if _is_choice(repo, override)]
    if not typed:
        return Presets(overrides)
    of_team = [_of_team(repo, each) if each in typed else each for each in overrides]
    if of_team != overrides and _is_team(repo, config_name):
        overrides = of_team
        typed = [override for override in overrides if _is_choice(repo, override)]
    given = frozenset(override.get_key_element().lstrip("+~") for override in overrides)
    chosen = {key: choice for key, choice in _chosen_by(repo, typed) if key not in given}
    overrides = [_absolute(each) if each in typed else each for each in overrides]
    lines = [_line(key, choice.options) for key, choice in chosen.items()]
    chosen_too = OverridesParser.create().parse_overrides(lines)
    presets = Presets([*overrides, *chosen_too], chosen, given)
    faults = list(_choice_faults(repo, chosen.values(), file_of))
    if faults := faults or list(_unused_faults(repo, config_name, presets, file_of)):
        raise ConfigError(faults)
    return presets


def _is_choice(repo: IConfigRepository, override: Override) -> bool:
    """Whether an override names one or several files of a group."""
    if override.is_sweep_override() or override.is_delete():
        return False
    return repo.group_exists(override.key_or_group) and isinstance(override.value(), str | list)


def _absolute(override: Override) -> Override:
    """An added group is one of config/, not of the folder that a named config lies in."""
    if not override.is_add() or override.is_hydra_override():
        return override
    return replace(override, key_or_group=f"/{override.key_or_group}")


def _chosen_by(repo: IConfigRepository, typed: Iterable[Override]) -> Iterator[tuple[str, Choice]]:
    """What the files that were typed override, by the key of the group; the last one wins."""
    overrides = Overrides(repo, [])
    overrides.append_group_defaults = [
        GroupDefault(
            group=override.key_or_group,
            package=override.package,
            value=override.value(),
            external_append=True,
        )
        for override in typed
    ]
    _create_defaults_list(repo, None, overrides, prepend_hydra=False, skip_missing=True)
    for key, value in overrides.override_choices.items():
        options = value if isinstance(value, list) else [value] if value else []
        file = str(overrides.override_metadata[key].containing_config_path)
        yield key, Choice(key.partition("@")[0], tuple(options), file)


def _choice_faults(
    repo: IConfigRepository, choices: Iterable[Choice], file_of: Callable[[str], str]
) -> Iterator[Fault]:
    for choice in choices:
        where, key = file_of(choice.file), f"override /{choice.group}"
        if repo.group_exists(choice.group):
            yield from option_faults(repo, choice.group, choice.options, where, key)
            continue
        known = repo.get_group_options("", ObjectType.GROUP)
        message = f"there is no such group.{nearest(choice.group, known)}"
        yield Fault(where, message, key, ", ".join(choice.options))


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
                f"cannot act: {config_name} chooses no file of a group {key}; remove the line, and "
                "write the values themselves into the file"
            )
            named = ", ".join(choice.options)
            yield Fault(file_of(choice.file), message, f"override /{key}", named)


def _line(key: str, options: Iterable[str]) -> str:
    """A choice as it is typed; no options at all take the group away."""
    quoted = ["'{}'".format(option.replace("'", "\\'")) for option in options]
    if not quoted:
        return f"~{key}"
    return f"{key}={quoted[0]}" if len(quoted) == 1 else f"{key}=[{','.join(quoted)}]"


def options_of(override: Override) -> list[str]:
    """The options that an override names, without `.yaml`; none for `~group` and `group=null`."""
    if override.is_sweep_override():
        values: list[object] = list(override.sweep_string_iterator())
    else:
        value = override.value()
        values = value if isinstance(value, list) else [value]
    return [str(value).removesuffix(".yaml") for value in values if value not in (None, "null")]


def option_faults(
    repo: IConfigRepository, group: str, options: Iterable[str], file: str, key: str
) -> Iterator[Fault]:
    """Options that a group does not have.

    Args:
        file, key: where they are named.
    """
    known = repo.get_group_options(group)
    for option in options:
        if not repo.config_exists(f"{group}/{option}"):
            message = f"there is no such option.{nearest(option, known)}"
            yield Fault(file, f"{message} There are: {', '.join(known)}", key, option)


def _of_team(repo: IConfigRepository, override: Override) -> Override:
    """The same choice among the options of team configs, where there are any."""
    group = override.key_or_group
    named = options_of(override)
    team = [f"{TEAM_FOLDER}/{option}" for option in named]
    exists = [repo.config_exists(f"{group}/{option}") for option in team]
    if not any(exists):
        return override
    options = [own if there else each for each, own, there in zip(named, team, exists, strict=True)]
    return OverridesParser.create().parse_override(_line(override.get_key_element(), options))


def _is_team(repo: IConfigRepository, config_name: str | None) -> bool:
    """Whether a config is a team config, or builds on one."""
    overrides = Overrides(repo, [])
    composed, _ = _create_defaults_list(
        repo, config_name, overrides, prepend_hydra=False, skip_missing=True
    )
    files = [repo.load_config(default.config_path) for default in composed if default.config_path]
    return any(key in file.config for file in files if file for key in _TEAM_KEYS)
