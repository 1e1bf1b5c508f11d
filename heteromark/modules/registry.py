"""Names for interchangeable components, and import paths of a user's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Component = TypeVar("Component", bound=Callable)


class Registry(Generic[Component]):
    """Maps the value of a config key to what it selects.

    A component of one's own is selected by its import path `module:attribute`.

    Args:
        key: the config key that selects, named in errors.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._components: dict[str, Component] = {}

    def register(self, name: str) -> Callable[[Component], Component]:
        """Decorator that makes a component selectable as `name`."""

        def add(component: Component) -> Component:
            if name in self._components:
                raise ValueError(f"{self.key}: {name!r} is registered twice")
            self._components[name] = component
            return component

        return add

    def __getitem__(self, name: str) -> Component:
        """The component called `name`, or found at the import path `name`.

        Raises:
            ValueError, ModuleNotFoundError: there is none; the message lists what there is.
        """
        if ":" in name:
            return import_path(name, self.key)
        if name not in self._components:
            choices = ", ".join(sorted(self._components))
            raise ValueError(
                f"{self.key} is {name!r}; there is {choices}, or an import path of your own, "
                "`module:attribute`"
            )
        return self._components[name]


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
            f"{key} is {path!r}, but there is no module {error.name!r}; install the package that "
            f"provides it, or correct {key}",
            name=error.name,
        ) from error
    component = getattr(module, attribute, None)
    if not callable(component):
        raise ValueError(
            f"{key} is {path!r}, but module {module_name!r} has no callable {attribute!r}"
        )
    return component
