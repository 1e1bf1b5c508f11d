"""Things named by an import path, or by a name that stands for one."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

# What SMAC needs besides its package, and what to do without it.
STARCRAFT = (
    "StarCraft II 4.10, with SC2PATH set to its folder (~/StarCraftII if not set) and the maps "
    "SMAC_Maps of SMACv2's repository in its folder Maps"
)
WITHOUT_STARCRAFT = "an environment that needs neither is environment=skirmish"

Component = TypeVar("Component", bound=Callable)


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


def how_to_install(module: str) -> str | None:
    """What a task in `module` needs, if that is SMAC or SMACv2 and not installed, else None."""
    package = module.partition(".")[0]
    if package not in ("smac", "smacv2") or importlib.util.find_spec(package):
        return None
    return (
        f'install the package with `pip install "git+https://github.com/oxwhirl/{package}.git"`, '
        f"and {STARCRAFT}; {WITHOUT_STARCRAFT}"
    )


class Registry(Generic[Component]):
    """Maps the value of a config key to what it selects.

    A component of the user's own is selected by its import path `module:attribute`.

    Args:
        key: the config key that selects, named in errors.
        homes: modules below `heteromark` that register a name, by name. They are imported when
            the name is selected, and not before: so a run holds no code of other choices.
        base: class that a component of the user's own must derive from; None: any callable.
    """

    def __init__(
        self, key: str, homes: Mapping[str, str] | None = None, base: type | None = None
    ) -> None:
        self.key = key
        self._base = base
        self._homes = dict(homes or {})
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
            TypeError: the user's own component does not derive from the base class.
        """
        if ":" in name:
            return self._checked(import_path(name, self.key), name)
        if name not in self._components and name in self._homes:
            importlib.import_module(f"heteromark.{self._homes[name]}")
        if name not in self._components:
            choices = ", ".join(sorted({*self._components, *self._homes}))
            raise ValueError(
                f"{self.key} is {name!r}; there is {choices}, or an import path of your own, "
                "`module:attribute`"
            )
        return self._components[name]

    def _checked(self, component: Component, path: str) -> Component:
        base = self._base
        if base is None or (inspect.isclass(component) and issubclass(component, base)):
            return component
        raise TypeError(
            f"{self.key} is {path!r}, which is no subclass of "
            f"{base.__module__}.{base.__qualname__}; derive it from that, or select it in a run of "
            "the other kind of agents"
        )
