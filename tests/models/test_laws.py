"""Laws that every registered model obeys; a new model needs an entry in ``CASES`` and no tests.

Each case is a tiny configuration; together they should cover the options that change the loss.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from forethought.agents.amortized import AmortizedConfig
from forethought.agents.bc import BCConfig
from forethought.agents.gamma_mve import GammaMVEConfig
from forethought.agents.iql import IQLConfig
from forethought.agents.mbpo import MBPOConfig
from forethought.agents.mve import MVEConfig
from forethought.agents.sac import SACConfig
from forethought.checkpoint import load_model, save_config, save_model
from forethought.config import Experiment, ModelConfig
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.base import Model, SamplerConfig, TrajectorySampler
from forethought.models.diffuser import DiffuserConfig
from forethought.models.dynamics import DynamicsConfig
from forethought.models.factored import FactoredTransformerConfig
from forethought.models.gamma_flow import GammaFlowConfig
from forethought.models.gamma_gan import GammaGANConfig
from forethought.models.gamma_matching import GammaMatchingConfig
from forethought.models.transformer import TransformerConfig
from forethought.planners.diffusion import DiffusionPlannerConfig
from forethought.registry import models
from forethought.types import Pin, Trajectory

BATCH = 16

# two levels, one block each; 16 channels because a GroupNorm group of one channel cancels its bias
SMALL = DiffuserConfig(
    horizon=8,
    pad="repeat",
    denoising_steps=8,
    dim=16,
    dim_mults=(1, 2),
    blocks_per_level=1,
    reach_width=16,
)
SHORT_SIGHTED = SACConfig(width=16, discount=0.5)  # so that its loss falls within 200 steps
ENSEMBLE = DynamicsConfig(width=16, layers=1, members=2)

TINY_TOKENS = {"context": 2, "horizon": 4, "n_bins": 6, "width": 16, "depth": 1, "heads": 2}
TOKENS = TransformerConfig(**TINY_TOKENS, dropout=0.0)
FACTORED = FactoredTransformerConfig(**TINY_TOKENS, dropout=0.0, head_width=16, head_depth=1)


@dataclass(frozen=True)
class Case:
    """A tiny configuration and the submodule whose output (.., horizon, features) is scored."""

    config: ModelConfig
    network: str = "network"
    outputs: int = 1
    """numbers that the submodule puts out for each dimension of a row"""
    falls: bool = True
    """whether learning lowers the loss; at a saddle point it need not"""


CASES: dict[str, dict[str, Case]] = {
    "diffuser": {
        "released": Case(replace(SMALL, condition_in_training="start_and_end")),
        "noise": Case(replace(SMALL, prediction="noise", condition_in_training="none")),
        "gaussian": Case(
            replace(
                SMALL,
                normalizer="gaussian",
                clip_clean=False,
                condition_in_training="start",
                first_action_weight=10.0,
            )
        ),
        "blocks": Case(replace(SMALL, stride=2, prediction="noise")),
        "observations": Case(replace(SMALL, stride=2, actions="none", activation="silu")),
        "goal-times": Case(
            replace(
                SMALL,
                condition_in_training="start_and_goal_time",
                mark_pins=True,
                reach_pairs=32,
            )
        ),
        "mixed": Case(
            replace(
                SMALL,
                stride=2,
                condition_in_training="start_and_goal_time",
                mark_pins=True,
                mixed_horizons=(2, 4),
                reach_pairs=32,
            )
        ),
        "growing": Case(
            replace(
                SMALL,
                stride=2,
                growth=0.3,
                actions="none",
                condition_in_training="start_and_goal_time",
                mark_pins=True,
                reach_pairs=32,
            )
        ),
        "transformer": Case(
            replace(SMALL, backbone="dit", dim=32, depth=2, octaves=2, mark_pins=True)
        ),
    },
    "transformer": {
        "released": Case(
            replace(
                TOKENS,
                return_token="without_reward",
                hide_returns=True,
                stop_token=True,
                terminal_reward="replace",
                action_weight=5.0,
                dropout=0.1,
                dropout_at="everywhere",
            ),
            outputs=7,
        ),
        "goals": Case(
            replace(
                TOKENS, goal="final", reward_token=False, return_token="none", reconstruct="mean"
            ),
            outputs=6,
        ),
        "rolling": Case(replace(TOKENS, positions="rotary", band=1, hidden_share=0.5), outputs=6),
    },
    "factored-transformer": {
        "plain": Case(FACTORED, outputs=6),
        "released": Case(
            replace(FACTORED, hide_returns=True, stop_token=True, hidden_share=0.5, dropout=0.1),
            outputs=7,
        ),
    },
    "gamma-matching": {
        "td2": Case(GammaMatchingConfig(width=16, blocks=1, most_discount=0.99)),
        "td": Case(GammaMatchingConfig(objective="td", width=16, blocks=1, discount=0.5)),
        "coupled": Case(
            GammaMatchingConfig(objective="coupled", width=16, blocks=1, terminal_flag=True)
        ),
    },
    "gamma-flow": {
        "fixed": Case(GammaFlowConfig(transforms=2, width=16)),
        "learned": Case(GammaFlowConfig(transforms=2, width=16, single_step="learned")),
    },
    "gamma-gan": {
        "least-squares": Case(GammaGANConfig(width=16, samples=2)),
        "original": Case(GammaGANConfig(width=16, samples=2, objective="original"), falls=False),
    },
    "amortized": {"ensemble": Case(AmortizedConfig(width=16, members=2), "networks")},
    "sac": {
        "paper": Case(SACConfig(width=16, discount=0.5)),
        "layer-norm": Case(SACConfig(width=16, discount=0.5, critic_layer_norm=True)),
    },
    "dynamics": {
        "no-end": Case(ENSEMBLE),
        "ends": Case(replace(ENSEMBLE, members=3, learn_termination=True)),  # 3 leave a row out
    },
    "mve": {"ends": Case(MVEConfig(sac=SHORT_SIGHTED, dynamics=ENSEMBLE, rollout=2))},
    "mbpo": {
        "growing": Case(
            MBPOConfig(
                sac=SHORT_SIGHTED,
                dynamics=replace(ENSEMBLE, learn_termination=True),
                rollout_growth=100,
                most_rollout=3,
                real_share=0.25,
                imagined_size=40,
            )
        )
    },
    "gamma-mve": {
        "matching": Case(
            GammaMVEConfig(
                sac=SHORT_SIGHTED,
                gamma=GammaMatchingConfig(width=16, blocks=1, discount=0.3, terminal_flag=True),
                reward_width=16,
                rollout=2,
                samples=2,
            )
        ),
        "gan": Case(
            GammaMVEConfig(
                sac=SHORT_SIGHTED,
                gamma=GammaGANConfig(width=16, samples=2, discount=0.3),
                reward_width=16,
                entropy=False,
            ),
            falls=False,
        ),
    },
    "bc": {"gaussian": Case(BCConfig(width=16))},
    "iql": {
        "single-task": Case(IQLConfig(width=16, temperature=3.0)),
        # a radius of zero means the same in all units
        "goals": Case(IQLConfig(width=16, goal_dims=(0, 1), goal_radius=0.0)),
    },
}
ALL = [(name, label) for name, cases in CASES.items() for label in cases]
each_case = pytest.mark.parametrize(("name", "label"), ALL, ids=[f"{n}-{c}" for n, c in ALL])


def built(config: ModelConfig, dataset: EpisodeDataset) -> Model:
    """The same untrained model at every call."""
    torch.manual_seed(0)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    return model


def batch_of(config: ModelConfig, dataset: EpisodeDataset):
    """The same batch at every call, drawn over the whole data set."""
    view = config.view(dataset)
    return view[np.random.default_rng(0).integers(len(view), size=BATCH)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scaled(dataset: EpisodeDataset, factor: float) -> EpisodeDataset:
    """The same episodes in other units."""
    episodes = [
        Episode(factor * e.observations, factor * e.actions, e.rewards, e.terminated)
        for e in dataset
    ]
    return EpisodeDataset.from_episodes(episodes)


def draw(model: Model, observation: torch.Tensor) -> Trajectory:
    """Samples from a trajectory sampler, the same at every call."""
    assert isinstance(model, TrajectorySampler), "draw is for trajectory samplers only"
    sampler = SamplerConfig(kind="ddpm", steps=0)
    times = model.plan_times(14)
    return model.sample(
        [Pin(0, observation)], times=times, n_candidates=2, sampler=sampler, generator=seeded(7)
    )


def test_every_registered_model_has_tiny_cases():
    missing = sorted(set(models) - set(CASES))
    assert not missing, (
        f"registered models without law tests: {', '.join(missing)}. Add tiny configurations of "
        "each to CASES in tests/models/test_laws.py."
    )
    for name, cases in CASES.items():
        for label, case in cases.items():
            assert type(case.config) is models[name], f"case {name}-{label} is of another model"


@each_case
def test_loss_is_a_finite_scalar_with_detached_scalar_metrics(name, label, dataset):
    config = CASES[name][label].config
    loss, metrics = built(config, dataset)(batch_of(config, dataset), seeded(0))
    assert loss.shape == () and loss.requires_grad and bool(loss.isfinite())
    for key, value in metrics.items():
        assert value.shape == () and not value.requires_grad, f"metric {key} is not a plain number"


@each_case
def test_every_trainable_parameter_gets_a_gradient(name, label, dataset):
    config = CASES[name][label].config
    model = built(config, dataset)
    batch = batch_of(config, dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for seed in range(6):  # their union: a step may draw a short horizon or one goal time
        model.loss(batch, seeded(seed))[0].backward()
        optimizer.step()  # layers that start at zero pass gradients on once they have moved
    silent = [
        key
        for key, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert not silent, f"no gradient reaches {silent}"


@each_case
def test_network_output_at_padded_steps_gets_exactly_zero_gradient(name, label, dataset):
    case = CASES[name][label]
    model, batch = built(case.config, dataset), batch_of(case.config, dataset)
    if not isinstance(batch, Trajectory):
        pytest.skip("single steps have no padding")
    assert not bool(batch.observation_mask.all()), "the batch should hold padded windows"
    outputs = []
    hook = model.get_submodule(case.network).register_forward_hook(
        lambda module, inputs, output: (output.retain_grad(), outputs.append(output))[1]
    )
    for seed in range(4):
        outputs.clear()
        model.loss(batch, seeded(seed))[0].backward()
        # token networks put columns first: (columns, batch, rows, outputs)
        pieces = [o.grad.permute(1, 2, 0, 3) if o.ndim == 4 else o.grad for o in outputs]
        gradient = torch.cat(pieces)
        gradient = gradient.reshape(*batch.observations.shape[:2], -1)  # pieces back to windows
        width = batch.observations.shape[-1] * case.outputs
        of_observations, of_actions = gradient[..., :width], gradient[..., width:]
        assert not bool(of_observations[~batch.observation_mask].any())
        assert not bool(of_actions[~batch.action_mask].any())
        assert bool(gradient.any()), "nothing is learned from this batch"
    hook.remove()


@each_case
def test_200_steps_on_one_batch_lower_the_loss(name, label, dataset):
    config = CASES[name][label].config
    if not CASES[name][label].falls:
        pytest.skip("a saddle point; see test_gamma_targets.py")
    model, batch = built(config, dataset), batch_of(config, dataset)

    def mean_loss() -> float:
        with torch.no_grad():
            return float(np.mean([float(model.loss(batch, seeded(s))[0]) for s in range(100, 116)]))

    before, noise = mean_loss(), seeded(0)
    optimizer = torch.optim.Adam(model.parameter_groups(0.0), lr=3e-3, fused=True)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(batch, noise)[0].backward()
        optimizer.step()
        model.after_step()
    after = mean_loss()
    assert after < 0.75 * before, f"loss went from {before:.3f} to {after:.3f}"


@each_case
def test_same_seed_same_loss_bitwise(name, label, dataset):
    config = CASES[name][label].config
    losses = [
        built(config, dataset).loss(batch_of(config, dataset), seeded(3))[0] for _ in range(2)
    ]
    assert losses[0].item() == losses[1].item()


@each_case
def test_loaded_model_equals_the_saved_one(name, label, dataset, tmp_path):
    config = CASES[name][label].config
    model = built(config, dataset)
    experiment = Experiment(
        name="law", dataset="none", env="none", model=config, planner=DiffusionPlannerConfig()
    )
    save_config(tmp_path, experiment, dataset.spaces, dataset={"fingerprint": "none"}, seed=0)
    save_model(tmp_path, model.state_dict())
    torch.manual_seed(1)  # the copy starts from other weights
    copy = load_model(tmp_path)
    assert not copy.training and not any(p.requires_grad for p in copy.parameters())
    batch = batch_of(config, dataset)
    model.eval()
    torch.testing.assert_close(
        copy.loss(batch, seeded(5))[0], model.loss(batch, seeded(5))[0].detach(), rtol=0, atol=0
    )
    if isinstance(model, TrajectorySampler):
        start = batch.observations[:3, 0]
        ours, theirs = draw(model, start), draw(copy, start)
        torch.testing.assert_close(theirs.observations, ours.observations, rtol=0, atol=0)
        torch.testing.assert_close(theirs.actions, ours.actions, rtol=0, atol=0)


@each_case
@pytest.mark.parametrize("factor", [10.0, 0.01])
def test_other_units_give_the_same_loss_and_scaled_samples(name, label, factor, dataset):
    config = CASES[name][label].config
    other = scaled(dataset, factor)
    model, model_other = built(config, dataset).eval(), built(config, other).eval()
    batch, batch_other = batch_of(config, dataset), batch_of(config, other)
    for seed in range(3):
        loss = model.loss(batch, seeded(seed))[0]
        torch.testing.assert_close(
            model_other.loss(batch_other, seeded(seed))[0], loss, rtol=1e-4, atol=0
        )
    if isinstance(model, TrajectorySampler):
        start = batch.observations[:3, 0]
        ours, theirs = draw(model, start), draw(model_other, factor * start)
        close = {"rtol": 1e-3, "atol": 1e-3 * factor}  # float32 through eight network calls
        torch.testing.assert_close(theirs.observations, factor * ours.observations, **close)
        torch.testing.assert_close(theirs.actions, factor * ours.actions, **close)


# ------------------------------------------------------------------- Diffuser: what conditioning is


@pytest.mark.parametrize("kind", ["none", "start", "start_and_end", "start_and_goal_time"])
def test_rows_given_in_training_are_shown_clean_and_carry_no_loss(kind, dataset):
    config = replace(SMALL, condition_in_training=kind, mark_pins=True)
    model, batch = built(config, dataset), batch_of(config, dataset)
    z_batch = model.encode(batch)[..., :3]
    seen = {}

    def keep(module, inputs, output):
        output.retain_grad()
        seen.update(shown=inputs[0][..., :5], given=inputs[0][..., 5:].bool(), output=output)

    model.network.register_forward_hook(keep)
    model.loss(batch, seeded(0))[0].backward()
    given, shown = seen["given"], seen["shown"][..., :3]
    assert not bool(given[..., 3:].any()), "actions are never given"
    assert not bool(seen["output"].grad[given].any())
    rows = given[..., 0]  # (B, H)
    assert torch.equal(given[..., :3], rows[..., None].expand(-1, -1, 3)), "whole observations"
    counts = {"none": [], "start": [0], "start_and_end": [0, 7]}
    if kind != "start_and_goal_time":
        expected = torch.zeros(8, dtype=torch.bool)
        expected[counts[kind]] = True
        assert torch.equal(rows, expected.expand(BATCH, -1))
        torch.testing.assert_close(shown[rows], z_batch[rows], rtol=0, atol=0)
        return
    goal_row = 8 - rows[:, 1:].sum(dim=1)
    assert rows[:, 0].all() and len(goal_row.unique()) > 4, "goal times are drawn over the window"
    for window in range(BATCH):
        row = int(goal_row[window])
        assert rows[window].tolist() == [True] + [False] * (row - 1) + [True] * (8 - row)
        held = z_batch[window, row].expand(8 - row, -1)
        torch.testing.assert_close(shown[window, row:], held, rtol=0, atol=0)
        assert not bool(seen["output"].grad[window, row:].any()), "nor do actions after the goal"
