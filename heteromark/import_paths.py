"""Load components by import path (`module:attribute`) or by registered name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

# What SMAC needs besides its Python package, and the alternative.
STARCRAFT = (
    "StarCraft II 4.10, with SC2PATH set to its folder (default: ~/StarCraftII) and SMAC_Maps "
    "from SMACv2's repository in its Maps folder"
)
WITHOUT_STARCRAFT = "environment=skirmish needs neither"

# Packages of environments, and the extra that installs each.
EXTRAS = {
    "gymnasium_robotics": "mamujoco",
    "lbforaging": "lbf",
    "magent2": "magent2",
    "rware": "rware",
    "vmas": "vmas",
}

Component = TypeVar("Component", bound=Callable[..., Any])


@dataclass(frozen=True)
class Task:
    """An environment factory by import path, which can be pickled even if the factory cannot.

    Attributes:
        path: import path `module:callable` of the factory.
        kwargs: keyword arguments of the factory.
    """

    path: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, **kwargs: Any) -> Any:
        """Create an environment; `kwargs` override those of the task.

        Raises:
            ValueError, ModuleNotFoundError: see `import_path`.
        """
        return import_path(self.path, "environment.task")(**{**self.kwargs, **kwargs})

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the factory, by name."""
        factory = import_path(self.path, "environment.task")
        # Inspect __init__, because the metaclass of TorchRL's EnvBase hides its parameters.
        return inspect.signature(
            factory.__init__ if inspect.isclass(factory) else factory
        ).parameters


def import_path(path: str, key: str) -> Callable[..., Any]:
    """Import the callable at an import path `module:callable`.

    Args:
        path: the import path.
        key: the config key that holds the path, for error messages.

    Raises:
        ValueError: the path has no colon, or the module has no such callable.
        ModuleNotFoundError: the module, or a module that it imports, is not installed.
    """
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(
            f"{key} is {path!r}, but must be an import path `module:callable`, such as "
            "mpe2.simple_spread_v3:parallel_env"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{key} is {path!r}, but module {error.name!r} was not found; "
            + (how_to_install(module_name) or _similar_module(error.name, key)),
            name=error.name,
        ) from error
    component = getattr(module, attribute, None)
    if not callable(component):
        raise ValueError(
            f"{key} is {path!r}, but module {module_name!r} has no callable {attribute!r}"
        )
    return component


def _similar_module(missing: str | None, key: str) -> str:
    """Return what to do about a missing module: the nearest name in its package, or install it."""
    package, _, name = (missing or "").rpartition(".")
    if package in sys.modules:
        found = [module.name for module in pkgutil.iter_modules(sys.modules[package].__path__)]
        if nearest := difflib.get_close_matches(name, found, n=1):
            return f"did you mean {package}.{nearest[0]}? Correct {key}"
    return f"install its package, or correct {key}"


def how_to_install(module: str) -> str | None:
    """Return how to install the package of `module`; None: it is installed, or unknown."""
    package = module.partition(".")[0]
    if package in EXTRAS and not importlib.util.find_spec(package):
        return f"install it with `pip install 'heteromark[{EXTRAS[package]}]'`"
    if package not in ("smac", "smacv2") or importlib.util.find_spec(package):
        return None
    return (
        "install it with `pip install 'heteromark[smacv2]'` and `pip install --no-deps "
        f'"git+https://github.com/oxwhirl/{package}.git"`, and {STARCRAFT}; {WITHOUT_STARCRAFT}'
    )


class Registry(Generic[Component]):
    """Map the values of a config key to components.

    Custom components are selected by import path, `module:attribute`.

    Args:
        key: the config key that selects the component, for error messages.
        homes: maps a name to the module below `heteromark` that registers it. A module is
            imported only once its name is selected, so a run loads no code of other components.
        base: class that custom components must derive from; None: any callable.
    """

    def __init__(
        self, key: str, homes: Mapping[str, str] | None = None, base: type | None = None
    ) -> None:
        self.key = key
        self._base = base
        self._homes = dict(homes or {})
        self._components: dict[str, Component] = {}

    def register(self, name: str) -> Callable[[Component], Component]:
        """Return a decorator that registers a component as `name`."""

        def add(component: Component) -> Component:
            if name in self._components:
                raise ValueError(f"{self.key}: {name!r} is registered twice")
            self._components[name] = component
            return component

        return add

    def __getitem__(self, name: str) -> Component:
        """Return the component registered as `name`, or at the import path `name`.

        Raises:
            ValueError, ModuleNotFoundError: no such component; the message lists the choices.
            TypeError: a custom component does not derive from the base class.
        """
        if ":" in name:
            return self._checked(import_path(name, self.key), name)
        if name not in self._components and name in self._homes:
            importlib.import_module(f"heteromark.{self._homes[name]}")
        if name not in self._components:
            choices = ", ".join(sorted({*self._components, *self._homes}))
            raise ValueError(
                f"{self.key} is {name!r}, but must be one of {choices}, or your own import "
                "path, `module:attribute`"
            )
        return self._components[name]

    def _checked(self, component: Any, path: str) -> Component:
        base = self._base
        if base is None or (inspect.isclass(component) and issubclass(component, base)):
            return component
        raise TypeError(
            f"{self.key} is {path!r}, which is not a subclass of "
            f"{base.__module__}.{base.__qualname__}; derive it from that class, or use it with the "
            "other kind of agents (networks or language models)"
        )
