"""Things named by an import path, an environment's own factory among them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heteromark.environment.smac.installation import how_to_install


@dataclass(frozen=True)
class Task:
    """Makes an environment; can be sent to another process, which a factory itself often cannot.

    Attributes:
        path: import path `module:callable` of the environment's factory.
        kwargs: its keyword arguments.
    """

    path: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, **kwargs: Any) -> Any:
        """A fresh environment; `kwargs` win over those of the task.

        Raises:
            ValueError, ModuleNotFoundError: see `import_path`.
        """
        return import_path(self.path, "environment.task")(**{**self.kwargs, **kwargs})

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the environment's factory, by name."""
        factory = import_path(self.path, "environment.task")
        # a class's own, because the metaclass of TorchRL's EnvBase hides them
        return inspect.signature(
            factory.__init__ if inspect.isclass(factory) else factory
        ).parameters


def import_path(path: str, key: str) -> Callable[..., Any]:
    """The callable at an import path `module:callable`.

    Args:
        key: the config key that holds the path, named in errors.

    Raises:
        ValueError: the path has no colon, or the module no such callable.
        ModuleNotFoundError: the module, or one that it imports, is not installed.
    """
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(
            f"{key} is {path!r}; it must be an import path `module:callable`, such as "
            "mpe2.simple_spread_v3:parallel_env"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{key} is {path!r}, but there is no module {error.name!r}; "
            + (
                how_to_install(module_name)
                or f"install the package that provides it, or correct {key}"
            ),
            name=error.name,
        ) from error
    component = getattr(module, attribute, None)
    if not callable(component):
        raise ValueError(
            f"{key} is {path!r}, but module {module_name!r} has no callable {attribute!r}"
        )
    return component
