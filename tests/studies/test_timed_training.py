"""Models trained for a time: kept, planned once, resumed."""

import json
from pathlib import Path

import numpy as np
import torch

from forethought.config import Experiment, TrainConfig
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.dynamics import DynamicsConfig
from forethought.studies.timed_training import trained_for


def test_a_model_is_trained_once_by_a_plan_that_outlives_a_stop(tmp_path: Path):
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (30, 1)).astype(np.float32)
    episode = Episode(rng.normal(size=(31, 2)), actions, np.zeros(30))
    dataset = EpisodeDataset.from_episodes([episode])
    experiment = Experiment(
        name="tiny",
        dataset="none",
        env="",
        model=DynamicsConfig(members=2, width=4, layers=1),
        train=TrainConfig(batch_size=4, save_every=5, ema_decay=0.0),
    )
    model, facts = trained_for(experiment, dataset, tmp_path, 0.02)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert facts["steps"] == plan["steps"] >= 10
    assert not facts["resumed"]
    again, same = trained_for(experiment, dataset, tmp_path, 1e6)
    assert same == facts
    (tmp_path / "training.json").unlink()  # as if stopped just before the end
    resumed, later = trained_for(experiment, dataset, tmp_path, 1e6)
    assert later["resumed"]
    assert later["steps"] == facts["steps"]
    for other in (again, resumed):
        torch.testing.assert_close(other.state_dict(), model.state_dict())
