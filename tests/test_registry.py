"""Laws of the name tables."""

import importlib
import sys

import pytest

from forethought.registry import Registry, datasets, did_you_mean, models, planners, recipes


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package without modules; yields its folder."""
    folder = tmp_path / "law_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "law_package"]:
        del sys.modules[name]


def test_entry_is_found_by_name_and_name_by_entry(package):
    things = Registry("thing", "law_package")

    @things.register("first")
    def first() -> None: ...

    assert things["first"] is first and things.name_of(first) == "first"
    things.register("another")(len)
    assert list(things) == ["another", "first"]


def test_modules_of_the_package_are_imported_at_the_first_lookup_only(package):
    (package / "entry.py").write_text("raise RuntimeError('imported')\n")
    things = Registry("thing", "law_package")
    things.register("early")(len)
    assert "law_package.entry" not in sys.modules
    with pytest.raises(RuntimeError, match="imported"):
        things["early"]


def test_modules_of_all_packages_are_found(package):
    second = package / "second"
    second.mkdir()
    (second / "__init__.py").write_text("")
    (second / "entry.py").write_text(
        "from law_package import THINGS\nTHINGS.register('far')(max)\n"
    )
    (package / "__init__.py").write_text(
        "from forethought.registry import Registry\n"
        "THINGS = Registry('thing', 'law_package', 'law_package.second')\n"
    )
    (package / "near.py").write_text("from law_package import THINGS\nTHINGS.register('near')(min)")
    things = importlib.import_module("law_package").THINGS
    assert list(things) == ["far", "near"] and things["far"] is max


def test_a_name_can_be_taken_once_only(package):
    things = Registry("thing", "law_package")
    things.register("one")(len)
    with pytest.raises(ValueError, match="thing 'one' is registered twice; choose another name"):
        things.register("one")(max)
    assert things["one"] is len


def test_unknown_name_lists_the_nearest_and_all(package):
    things = Registry("thing", "law_package")
    with pytest.raises(KeyError, match="unknown thing 'one'. Known: none."):
        things["one"]
    for name in ("maze-large", "maze-medium", "walker"):
        things.register(name)(len)
    with pytest.raises(KeyError) as error:
        things["maze-larg"]
    message = error.value.args[0]
    assert message.startswith(
        "unknown thing 'maze-larg'. Did you mean 'maze-large' or 'maze-medium'"
    )
    assert message.endswith("Known: maze-large, maze-medium, walker.")
    assert "Did you mean" not in did_you_mean("zzz", ["maze-large"], kind="thing")


def test_unregistered_entry_has_no_name(package):
    with pytest.raises(KeyError, match="is not registered as a thing"):
        Registry("thing", "law_package").name_of(len)


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (models, "diffuser"),
        (planners, "diffusion"),
        (recipes, "diffuser/maze-large-thesis"),
        (datasets, "maze-umaze"),
    ],
    ids=["models", "planners", "recipes", "datasets"],
)
def test_built_in_entries_are_found(registry, name):
    assert name in list(registry) and registry.name_of(registry[name]) == name


def test_of_many_names_only_those_that_begin_so_are_listed():
    known = [f"gamma/{n}" for n in range(5)] + [f"walker/{n}" for n in range(100)]
    message = did_you_mean("gamma", known, kind="recipe")
    assert "105 are known; `forethought list` shows them." in message
    assert message.endswith("Beginning so: gamma/0, gamma/1, gamma/2, gamma/3, gamma/4.")
    assert len(did_you_mean("walker", known, kind="recipe")) < 150
    assert "Beginning" not in did_you_mean("x", known, kind="recipe")
