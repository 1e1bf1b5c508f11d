"""The five layers of an agent config: defaults < base < params.yaml < variant < command line.

A variant consists of its differences from the base: a key with the base's value counts as
inherited, even if the file repeats it. So a full copy with one edited line is a one-line variant,
and params.yaml still applies to all other keys.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heteromark.config.errors import (
    COMMAND_LINE,
    ConfigError,
    Fault,
    config_error,
    faults_of,
    nearest,
)
from heteromark.config.files import SUFFIXES, read_mapping
from heteromark.config.models.agent import AgentConfig, Hyperparameters
from heteromark.config.models.params import ProjectParams
from heteromark.config.nested import flatten, merge, overlap, unflatten
from heteromark.config.rules.effect import why_ignored

WHAT = "Agent config"
PARAMS_FILE = "params.yaml"
_VARIANT_FILE = re.compile(r"^(?P<agent_id>.+)_sweep_(?P<variant>.+)$")


@dataclass(frozen=True)
class ResolvedAgent:
    """An agent config after all layers, with its files.

    Attributes:
        agent: the merged config.
        path: the agent config's file.
        base_path: the base's file, for a variant.
        varied: the dotted hyperparameters in which a variant differs from its base.
        resolved: the file already contains all layers, so no base and no params.yaml apply.
    """

    agent: AgentConfig
    path: Path
    base_path: Path | None = None
    varied: frozenset[str] = field(default_factory=frozenset)
    resolved: bool = False


def resolve_agent(
    path: Path,
    params: ProjectParams | None = None,
    command_line: dict[str, Any] | None = None,
    base: Path | None = None,
) -> ResolvedAgent:
    """Apply the five layers to one agent config file.

    Args:
        path: YAML or JSON file of a base config or a variant.
        params: the third layer; `None` skips it.
        command_line: nested hyperparameters that override all other layers.
        base: base config of a variant; `None`: the file's `defaults`, or
            `{agent_id}_v{version}` in the same folder.

    Raises:
        ConfigFileNotFoundError: the file, or the base of a variant, does not exist.
        ConfigError: all other faults at once.
    """
    agent = _resolve(Path(path), params, command_line or {}, base)
    ignored = [
        Fault(COMMAND_LINE, f"has no effect: {agent.agent.short_name} {reason}", key)
        for key in flatten(command_line or {})
        if (reason := why_ignored(agent.agent, key))
    ]
    if ignored:
        raise ConfigError(ignored)
    return agent


def _resolve(
    path: Path, params: ProjectParams | None, command_line: dict[str, Any], base: Path | None
) -> ResolvedAgent:
    raw = _read(path)
    set_all = params.hyperparameter_overrides() if params else {}
    resolved = raw.pop("resolved", False) is True
    references = raw.pop("defaults", None)
    if resolved or (references is None and not raw.get("sweep_variant")):
        from_params = {} if resolved else set_all
        sources = {COMMAND_LINE: command_line, PARAMS_FILE: from_params, str(path): raw}
        agent = _validate(merge(raw, from_params, command_line), path, sources)
        return ResolvedAgent(agent, path, resolved=resolved)

    if base and not os.path.isfile(base):
        message = f"{WHAT} file not found: {base}, the base of the variant {path}"
        fault = Fault(PARAMS_FILE, message, "sweep.base_config", str(base), "FileNotFoundError")
        raise config_error([fault])
    base_path = Path(base) if base else _find_base(path, raw, references)
    base_raw = _read(base_path)
    is_resolved = base_raw.pop("resolved", False) is True
    if not is_resolved and (base_raw.get("sweep_variant") or base_raw.get("defaults")):
        message = f"the base {base_path} is itself a variant; use a base config"
        raise ConfigError.single(str(path), message, references, "defaults")
    in_base = {str(base_path): base_raw}
    base_agent = _validate(base_raw, base_path, in_base, _Partial)
    whole = _validate(merge(base_raw, raw), path, {str(path): raw, **in_base}, _Partial)

    base_flat, whole_flat = (flatten(agent.hyperparameters()) for agent in (base_agent, whole))
    varied = {key: value for key, value in whole_flat.items() if base_flat[key] != value}
    labels = {key: value for key, value in raw.items() if key not in Hyperparameters.model_fields}
    own = merge(labels, unflatten(varied))
    sources = {COMMAND_LINE: command_line, str(path): own, PARAMS_FILE: set_all, **in_base}
    agent = _validate(merge(base_raw, set_all, own, command_line), path, sources)
    return ResolvedAgent(agent, path, base_path, frozenset(varied))


def resolve_sweep(
    patterns: str | Sequence[str],
    params: ProjectParams,
    root: Path = Path(),
    command_line: dict[str, Any] | None = None,
    base: Path | None = None,
    must_reach: Collection[str] | None = None,
) -> list[ResolvedAgent]:
    """Resolve every config that the patterns match, in order of their paths.

    Args:
        patterns: glob patterns or paths of agent configs, relative to `root`.
        params: the third layer.
        root: the project folder.
        command_line: nested hyperparameters that override all other layers.
        base: base config of every variant; None: as in `resolve_agent`.
        must_reach: dotted hyperparameters of params that must change at least one config;
            None: all that are set.

    Raises:
        ConfigError: the faults of all files, patterns without a match, configs with the same name,
            and hyperparameters in params that change no config.
    """
    paths, faults = expand_patterns(patterns, root)
    agents: list[ResolvedAgent] = []
    for path in paths:
        try:
            agents.append(resolve_agent(path, params, command_line, base))
        except ConfigError as error:
            faults.extend(error.faults)
    faults.extend(_repeated_names(agents))
    if not faults:
        faults.extend(_ineffective_params(agents, params, must_reach))
    if faults:
        raise config_error(faults)
    return agents


def expand_patterns(
    patterns: str | Sequence[str], root: Path = Path()
) -> tuple[list[Path], list[Fault]]:
    """Return the distinct files that the patterns match, and a fault per unmatched pattern."""
    found: dict[Path, None] = {}
    faults = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if os.path.isfile(Path(root, pattern)) or not glob.has_magic(pattern):
            found[_relative(Path(root, pattern))] = None
            continue
        matches = sorted(
            path
            for path in map(Path, glob.glob(str(Path(root, pattern)), recursive=True))
            if path.suffix in SUFFIXES and path.is_file()
        )
        if not matches:
            present = sorted(path.name for path in Path(root, pattern).parent.glob("*.[yj]*"))
            content = f"; its folder contains {', '.join(present)}" if present else ""
            message = f"matches no agent config (*.yaml, *.yml, *.json){content}"
            faults.append(Fault(PARAMS_FILE, message, "sweep.agents", pattern))
        found |= dict.fromkeys(map(_relative, matches))
    return list(found), faults


def _relative(path: Path) -> Path:
    """Make a path relative to the working directory if it is inside it, so that it is portable."""
    absolute = path.parent.resolve() / path.name  # keep a link's name: it names the config
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def _read(path: Path) -> dict[str, Any]:
    raw = read_mapping(path, WHAT)
    match = _VARIANT_FILE.match(path.stem)
    if match and not raw.get("resolved"):
        in_name, in_file = match["variant"], raw.get("sweep_variant")
        if in_file is None:
            raw["sweep_variant"] = in_name  # a renamed copy of the base
        elif str(in_file) != in_name:
            message = f"must be {in_name}, as in the file name; change one of the two"
            raise ConfigError([Fault(str(path), message, "sweep_variant", in_file)])
    return raw


def _find_base(path: Path, raw: dict[str, Any], references: Any) -> Path:
    if references is None:
        match = _VARIANT_FILE.match(path.stem)
        agent_id = raw.get("agent_id") or (match["agent_id"] if match else path.stem)
        reference = f"{agent_id}_v{raw.get('version', 1)}"
    elif isinstance(references, list) and len(references) == 1 and isinstance(references[0], str):
        reference = references[0]
    else:
        message = "must be a list with the name of one base config, such as [ppo_agent_v1]"
        raise ConfigError([Fault(str(path), message, "defaults", references)])
    candidates = [path.parent / f"{reference}{suffix}" for suffix in ("", *SUFFIXES)]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    bases = sorted(p.stem for p in path.parent.glob("*_v*") if p.suffix in SUFFIXES)
    message = (
        f"{WHAT} file not found: {path.parent / reference}.yaml, the base of the variant {path}."
        f"{nearest(reference, bases)} Create it, or choose another base with `defaults: [NAME]`"
    )
    raise config_error([Fault(str(path), message, kind="FileNotFoundError")])


class _Partial(AgentConfig):
    """An agent config before its last layer: batch_size need not divide n_steps yet."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        return (conflict for conflict in super().conflicts() if conflict[0] != "batch_size")


def _validate(
    data: dict[str, Any],
    path: Path,
    sources: Mapping[str, dict[str, Any]],
    model: type[AgentConfig] = AgentConfig,
) -> AgentConfig:
    """Validate a merged config.

    Args:
        sources: the merged layers by file or COMMAND_LINE, highest priority first.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = faults_of(error, model, str(path))
        raise ConfigError([_with_source(fault, sources) for fault in faults]) from error


def _with_source(fault: Fault, sources: Mapping[str, dict[str, Any]]) -> Fault:
    """Add the source of a faulty value if it is not the agent config itself."""
    for source, layer in sources.items():
        if any(overlap(key, fault.key) for key in flatten(layer)):
            if source == COMMAND_LINE:
                return replace(fault, file=COMMAND_LINE)
            origin = "" if source == fault.file else f" [from {source}]"
            return replace(fault, message=f"{fault.message}{origin}")
    return fault


def _repeated_names(agents: Iterable[ResolvedAgent]) -> list[Fault]:
    by_name: dict[str, list[str]] = {}
    for agent in agents:
        by_name.setdefault(agent.agent.short_name, []).append(str(agent.path))
    remedy = "change agent_id, version or sweep_variant in one of them"
    return [
        Fault(
            paths[0], f"is the name of several configs: {', '.join(paths)}; {remedy}", "name", name
        )
        for name, paths in by_name.items()
        if len(paths) > 1
    ]


def _ineffective_params(
    agents: Sequence[ResolvedAgent], params: ProjectParams, must_reach: Collection[str] | None
) -> list[Fault]:
    """Return a fault per hyperparameter in params.yaml that changes none of the configs."""
    faults = []
    for key, value in flatten(params.hyperparameter_overrides()).items():
        if must_reach is not None and key not in must_reach:
            continue
        reasons = {agent.agent.short_name: _why_ineffective(agent, key) for agent in agents}
        if all(reasons.values()):
            listed = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
            message = (
                f"applies to no config of the sweep: {listed}. "
                "Set it to null, or select other configs"
            )
            faults.append(Fault(PARAMS_FILE, message, key, value))
    return faults


def _why_ineffective(agent: ResolvedAgent, key: str) -> str:
    """Return why an override of `key` does not change this config; empty if it does."""
    if ignored := why_ignored(agent.agent, key):
        return ignored
    if agent.resolved:
        return "is resolved, so params.yaml does not apply"
    if key in agent.varied:
        return "sets it itself"
    return ""
