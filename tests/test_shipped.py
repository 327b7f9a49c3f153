"""Every shipped checkpoint can be used, with its own planner, by the code beside it."""

from pathlib import Path

import pytest

from forethought.checkpoint import CONFIG, WEIGHTS, load_config, load_model
from forethought.models.base import OccupancyModel
from forethought.registry import recipes

PRETRAINED = Path(__file__).parents[1] / "pretrained"
SHIPPED = sorted(
    file.parent for file in PRETRAINED.rglob(CONFIG) if (file.parent / WEIGHTS).exists()
)
each = pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: str(p.relative_to(PRETRAINED)))


def test_there_are_some():
    assert len(SHIPPED) > 20


@each
def test_its_planner_fits_its_model(folder):
    experiment, model = load_config(folder)["experiment"], load_model(folder)
    if experiment.planner is None:
        assert isinstance(model, OccupancyModel), "what does not act predicts"
    else:
        experiment.planner.build(model)


@each
def test_its_recipe_plans_as_it_does(folder):
    experiment = load_config(folder)["experiment"]
    if experiment.name in recipes:
        recipe = recipes[experiment.name]()
        assert (recipe.planner, recipe.control) == (experiment.planner, experiment.control)
