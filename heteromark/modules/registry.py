"""Names for interchangeable components."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Component = TypeVar("Component", bound=Callable)


class Registry(Generic[Component]):
    """Maps the value of a config key to what it selects.

    A new component is one file that says `@registry.register("name")` and one import of it.

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
        """The component called `name`.

        Raises:
            ValueError: there is none; the message lists what there is.
        """
        if name not in self._components:
            choices = ", ".join(sorted(self._components))
            raise ValueError(f"{self.key} is {name!r}; there is {choices}")
        return self._components[name]
