"""Names for things that users add: models, recipes, data sets.

A registry knows the packages that hold its built-in entries and imports their modules at the first
lookup, so the layer that looks a name up does not import the layers above it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Entry = TypeVar("Entry")
MANY = 40  # names that still fit into a message


def did_you_mean(name: str, known: list[str], *, kind: str) -> str:
    """One line for a user who gave an unknown name: the nearest names, then all of them, or of many
    those that begin with it."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    if len(known) <= MANY:
        return f"unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}."
    hint += f" {len(known)} are known; `forethought list` shows them."
    alike = [each for each in known if name and each.startswith(name)]
    if 0 < len(alike) <= MANY:
        hint += f" Beginning so: {', '.join(alike)}."
    return f"unknown {kind} {name!r}.{hint}"


class Registry(Generic[Entry]):
    """A mapping from name to entry, filled by decorators in the modules of ``packages``.

    kind: what an entry is called in error messages, e.g. "recipe"
    """

    def __init__(self, kind: str, *packages: str) -> None:
        self.kind = kind
        self._packages = packages
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that enters an object under ``name``; a name can be taken once only."""

        def enter(entry: Entry) -> Entry:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice; choose another name")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> Entry:
        self._load()
        if name not in self._entries:
            raise KeyError(did_you_mean(name, sorted(self._entries), kind=self.kind))
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def name_of(self, entry: Entry) -> str:
        """The name an entry was registered under."""
        self._load()
        for name, found in self._entries.items():
            if found is entry:
                return name
        raise KeyError(f"{entry!r} is not registered as a {self.kind}; decorate it first")

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for name in self._packages:
            package = importlib.import_module(name)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{name}.{module.name}")


models: Registry[type] = Registry("model", "forethought.models", "forethought.agents")
planners: Registry[type] = Registry("planner", "forethought.planners")
recipes: Registry[Callable] = Registry("recipe", "forethought.recipes")
datasets: Registry[Callable] = Registry("data set", "forethought.datasets")
studies: Registry[Callable] = Registry("study", "forethought.studies")
