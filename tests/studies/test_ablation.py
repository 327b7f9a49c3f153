"""The ablation changes one piece a row, compares by start, and tells and draws what it has."""

import torch

import forethought.studies.ablation_training as training
from forethought.config import Experiment, to_json
from forethought.models.diffuser import Diffuser, DiffuserConfig
from forethought.planners.diffusion import DiffusionPlanner, DiffusionPlannerConfig
from forethought.registry import datasets, recipes, studies
from forethought.scores import paired_difference
from forethought.studies.ablation import PIECES, ROWS, ablation, end_at_arrival, halve_reach
from forethought.studies.ablation_show import CADENCES, CELLS, difference
from forethought.studies.ablation_training import VARIANTS, Variant, trained_row, variant_of
from forethought.studies.base import StudySettings
from forethought.types import Spaces

CUT = ("half-reach", "cut")


def changed(before: Experiment, after: Experiment) -> set[str]:
    """Names of the settings that differ."""
    found = set()
    for part in ("planner", "control", "model"):
        first, second = (to_json(vars(each)[part]) for each in (before, after))
        found |= {f"{part}.{name}" for name in first if first[name] != second[name]}
    return found


def row(mean: float, group: str, n: int = 4, first: int = 0, **facts) -> dict:
    episodes = [
        {"seed": i, "score": mean + (i % 3), "start": [i, 0.0]} for i in range(first, first + n)
    ]
    experiment = recipes["diffuser/maze-large"]()
    return {
        "group": group,
        "label": f"the {group} piece",
        "score": {"mean": mean + 1, "interval": [mean, mean + 2]},
        "success_rate": 0.975,
        "n": n,
        "episodes": episodes,
        "planner": to_json(experiment.planner),
        "control": to_json(experiment.control),
        "plans": 10,
        "plan_ms": {"median": 5.0},
        **facts,
    }


TRAINED = {"seed": 1, "steps": 500, "parameters": 1_000, "core_seconds": 12.5}
PARTS = {
    "large-full": row(200.0, "full"),
    "large-every-5": row(203.0, "cadence"),
    "large-clock": row(180.0, "control"),
    "umaze-full": row(150.0, "full"),
    "trained-full": row(170.0, "model", training=TRAINED),
    "trained-dit": row(160.0, "model", training=TRAINED),
}


# ------------------------------------------------------------------------------- the pieces


def test_every_piece_changes_one_thing_and_the_full_system_none():
    before = recipes["diffuser/maze-large"]()
    for name, piece in PIECES.items():
        found = changed(before, piece.change(before))
        groups = {setting.split(".")[1] for setting in found}
        if name == "full" or name in CUT:
            assert not found
        elif name in ("clock", "inverse"):
            assert {"controller", "gains"} <= groups <= {"controller", "gains", "look_ahead"}
        elif name == "length":  # a fixed length is kept when planning again
            assert groups == {"length", "goal_time"}
        else:
            assert len(found) == 1, f"{name} changes {found}"
    for key in VARIANTS:
        found = changed(variant_of("full"), variant_of(key))
        assert all(setting.startswith("model.") for setting in found), f"{key} changes {found}"
        assert bool(found) == (key != "full")


def test_parts_are_unique_and_hold_the_rows_that_are_shown():
    names = [part.name for part in studies["ablation"]().parts]
    assert len(names) == len(set(names)) and set(ROWS) == set(CELLS)
    for cell in ("umaze", "medium", "large"):
        assert {f"{cell}-{piece}" for piece in CADENCES.values()} <= set(names)
        assert str(recipes[f"diffuser/maze-{cell}"]().control.replan_every) in CADENCES


def strided_model() -> Diffuser:
    torch.manual_seed(0)
    config = DiffuserConfig(
        horizon=16,
        stride=3,
        actions="none",
        denoising_steps=8,
        condition_in_training="start_and_goal_time",
        mark_pins=True,
        dim=16,
        dim_mults=(1, 2),
        blocks_per_level=1,
        reach_pairs=4,
        reach_width=16,
    )
    return config.build(Spaces(observation_dim=4, action_dim=2)).eval().requires_grad_(False)


def test_half_the_reach_keeps_the_weights_and_the_logits_of_the_near_half():
    model = strided_model()
    short, points = halve_reach(model), torch.randn(5, 4)
    assert model.reachability is not None and short.reachability is not None
    logits = model.reachability(points, points.flip(0))
    near = short.reachability(points, points.flip(0))
    torch.testing.assert_close(near, logits[:, :7])
    assert len(short.plan_times(21)) == 8
    arrival = short.arrival_time(points, points.flip(0), threshold=1.0)
    assert int(arrival.max()) <= 7 * 3


def test_plans_that_end_at_their_arrival_have_no_rows_to_spare():
    model = end_at_arrival(strided_model())
    plan = DiffusionPlanner(model, DiffusionPlannerConfig(length=19)).plan(
        torch.zeros(1, 4), goal=torch.ones(1, 4), generator=torch.Generator().manual_seed(0)
    )
    assert plan.trajectory.times.tolist() == [3 * k for k in range(8)]  # 7 rows, rounded to 8


# ------------------------------------------------------------------------------ what is shown


def test_difference_is_by_start_and_refuses_other_starts():
    first, second = PARTS["large-every-5"], PARTS["large-full"]
    records = [[{**e, "goal": None} for e in each["episodes"]] for each in (first, second)]
    assert difference(first, second) == paired_difference(*records) == (3.0, 3.0, 3.0)
    assert difference(row(1.0, "full", first=4), second) is None
    assert difference(row(202.0, "full", n=3), second) == (2.0, 2.0, 2.0), "over what both have"


def test_study_tells_and_draws_what_it_has():
    study = ablation()
    text = study.markdown(PARTS)
    assert "the cadence piece | 4 | 204.0 [203.0, 205.0] | +3.0 [+3.0, +3.0] | 97.5%" in text
    assert "the model piece | 4 | 161.0 [160.0, 162.0] | -10.0 [-10.0, -10.0]" in text
    assert "| Maze2D U-Maze | 15 | 1 | 2 | pursue_path | 151.0" in text
    figures = study.plot(PARTS)
    assert set(figures) == {"planning", "cadence", "models"}
    for figure in figures.values():
        figure.canvas.draw()
        assert figure.axes[0].patches, "bars are drawn"


def test_study_copes_with_any_part_missing():
    study = ablation()
    for missing in PARTS:
        parts = {name: value for name, value in PARTS.items() if name != missing}
        assert study.markdown(parts)
        for figure in study.plot(parts).values():
            figure.canvas.draw()
    assert study.plot({}) == {} and study.markdown({})
    others = {**PARTS, "large-clock": row(180.0, "control", first=9)}
    assert "other starts" in study.markdown(others)


# ------------------------------------------------------------------------------- computed


def test_row_of_a_shipped_checkpoint_says_what_made_it():
    part = next(part for part in ablation().parts if part.name == "umaze-every-45")
    made = part.compute(StudySettings(episodes=1))
    assert made["n"] == 1 and made["control"]["replan_every"] == 45
    assert made["group"] == "cadence" and made["checkpoint"].endswith("maze-umaze")
    assert made["protocol"]["env"] == "forethought/maze2d-umaze-v0"


def test_variants_are_trained_once_for_the_time_they_are_given(tmp_path, monkeypatch):
    small = {"dim": 16, "horizon": 16, "reach_pairs": 16, "reach_width": 16}
    slow = {**small, "horizon": 32}
    variants = {"full": Variant(label="a", model=small), "slow": Variant(label="b", model=slow)}
    monkeypatch.setattr(training, "VARIANTS", variants)
    monkeypatch.setattr(training, "ROUNDS", 1)
    datasets["maze-medium"](seed=0, n_steps=3000).save(tmp_path / "data" / "maze-medium")
    settings = StudySettings(data=tmp_path / "data", runs=tmp_path / "runs", seed=3)
    made = trained_row(settings, "full", core_seconds=0.5, n=1)
    facts = made["training"]
    assert facts["steps"] == max(1, int(0.5 / facts["step_seconds"])) and facts["seed"] == 1
    assert facts["core_seconds"] > 0 and made["protocol"]["seed"] == 3
    written = (tmp_path / "runs" / "ablation-full" / "model.safetensors").stat().st_mtime_ns
    again = trained_row(settings, "full", core_seconds=0.5, n=1)
    assert again["score"] == made["score"] and again["training"] == facts
    assert (tmp_path / "runs" / "ablation-full" / "model.safetensors").stat().st_mtime_ns == written
