"""Laws of settings: what is written is read back, and what is not understood is refused."""

import dataclasses
import json

import pytest

from forethought.config import Experiment, TrainConfig, from_json, to_json
from forethought.registry import recipes

RECIPES = list(recipes)


def example() -> dict:
    """A recipe as JSON, fresh, for a test to damage."""
    return json.loads(json.dumps(to_json(recipes["diffuser/maze-umaze"]())))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_the_round_trip_through_json(name):
    experiment = recipes[name]()
    assert isinstance(experiment, Experiment) and experiment.name == name
    text = json.dumps(to_json(experiment), allow_nan=False)
    back = from_json(Experiment, json.loads(text))
    assert back == experiment and hash(back) == hash(experiment)


def test_the_class_is_named_by_its_registry_entry():
    data = example()
    assert data["model"]["kind"] == "diffuser" and data["planner"]["kind"] == "diffusion"
    assert "kind" not in data["train"]


def test_an_experiment_may_have_no_planner_and_says_so_when_asked_for_one():
    experiment = recipes["gamma/linear-flow"]()
    assert to_json(experiment)["planner"] is None
    with pytest.raises(ValueError, match="gamma/linear-flow predicts and does not act"):
        experiment.require_planner()


def test_left_out_settings_take_their_defaults():
    assert from_json(TrainConfig, {"steps": 7}) == TrainConfig(steps=7)


def test_unknown_key_is_refused_with_its_place_and_the_nearest_name():
    data = example()
    data["train"]["learning_rat"] = 1.0
    message = r"file\.train: unknown setting 'learning_rat'. Did you mean 'learning_rate'"
    with pytest.raises(ValueError, match=message):
        from_json(Experiment, data, where="file")
    data = example()
    data["planner"]["sampler"]["guidance"]["scal"] = 1.0
    with pytest.raises(ValueError, match=r"config\.planner\.sampler\.guidance: .*'scale'"):
        from_json(Experiment, data)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("train", "steps", "many"),
        ("train", "steps", 1.5),
        ("train", "steps", True),
        ("train", "steps", None),
        ("train", "learning_rate", "0.1"),
        ("train", "learning_rate", True),
        ("train", "compile", 1),
        ("train", "schedule", "linear"),
        ("train", "betas", [0.9]),
        ("train", "betas", [0.9, "0.99"]),
        ("train", "betas", 0.9),
        ("model", "dim_mults", [1, "2"]),
        ("model", "normalizer", 3),
        ("planner", "sampler", 5),
        ("control", "gains", [[1.0, 2.0], 3.0]),
        ("control", "gains", [["a"]]),
    ],
)
def test_value_of_the_wrong_type_is_refused_with_its_place(part, key, value):
    data = example()
    assert key in data[part]
    data[part][key] = value
    with pytest.raises(ValueError, match=rf"config\.{part}\.{key}.*(expected|items)"):
        from_json(Experiment, data)


def test_whole_numbers_may_stand_for_floats_but_come_back_as_floats():
    rate = from_json(TrainConfig, {"learning_rate": 1}).learning_rate
    assert rate == 1.0 and isinstance(rate, float)


def test_missing_key_unknown_kind_and_missing_kind_are_refused():
    data = example()
    del data["env"]
    with pytest.raises(ValueError, match="config.*'env'"):
        from_json(Experiment, data)
    data = example()
    data["model"]["kind"] = "difuser"
    with pytest.raises(KeyError, match="unknown model 'difuser'. Did you mean 'diffuser'"):
        from_json(Experiment, data)
    del data["model"]["kind"]
    with pytest.raises(ValueError, match=r"config\.model names no 'kind'"):
        from_json(Experiment, data)
    with pytest.raises(ValueError, match="config is 3; expected an object"):
        from_json(Experiment, 3)


def test_impossible_training_settings_are_refused_when_they_are_made():
    for name, value in [
        ("steps", 0),
        ("batch_size", 0),
        ("ema_every", 0),
        ("learning_rate", 0.0),
        ("ema_decay", 1.0),
    ]:
        with pytest.raises(ValueError, match=rf"train\.{name} is {value}"):
            TrainConfig(**{name: value})


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().steps = 3  # type: ignore[misc]
