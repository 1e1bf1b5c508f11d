"""Names for interchangeable components, and import paths of a user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from heteromark.import_paths import import_path

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
