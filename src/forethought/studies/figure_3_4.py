"""Figure 3.4: values of unseen rewards from one pass of a gamma-model, beside value iteration.

Pendulum, discount 0.99. A value is the mean reward of the model's samples over 1 - discount
(Equation 3.6), with the first action drawn from the policy. The reference iterates the Bellman
equation of the same policy on a grid of 161 x 161 states. Two rewards of the state arrived in: the
task's own, and one that nothing was trained for, how far the tip is to the left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from forethought.agents.sac import SAC
from forethought.envs.grid import Grid, iterate_values, tabulate
from forethought.envs.pendulum import MAX_VELOCITY, PendulumEnv
from forethought.figures import INK, MUTED
from forethought.models.base import OccupancyModel
from forethought.models.gamma import estimate_value, rollout, steps_to_cover
from forethought.models.gamma_base import GammaModel
from forethought.occupancy import ClosedFormSimulator, simulate, steps_until
from forethought.registry import studies
from forethought.scores import rank_correlation
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_3_3 import ALL_SECONDS, MATCHING, draw_panel, shown_points
from forethought.studies.gamma_truth import load_policy, pose, trained_model

Array = NDArray[np.float64]

DISCOUNT, SHORTER = 0.99, 0.95
GRID = Grid(
    low=(-np.pi, -MAX_VELOCITY),
    high=(np.pi, MAX_VELOCITY),
    counts=(161, 161),
    periodic=(True, False),
)
NODES = 5  # of the quadrature over the policy's action
ANGLES = np.linspace(-np.pi, np.pi, 25)[:-1] + np.pi / 24
VELOCITIES = np.linspace(-7.5, 7.5, 21)
DRAWS, ROLLOUT_DRAWS, ROLLOUTS, MAP_ROLLOUTS = 1000, 64, 200, 10
NINE = [(angle, velocity) for velocity in (4.0, 0.0, -4.0) for angle in (-2.1, 0.0, 2.1)]
REWARDS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "task": ("the task's reward", PendulumEnv(reward="arrival").arrival_rewards),
    "left": (
        "how far left the tip is",
        lambda observations: np.maximum(0.0, -observations[..., 1]),
    ),
}


@studies.register("figure-3-4")
def figure_3_4() -> Study:
    """Value maps of two rewards."""
    return Study(
        title="Figure 3.4: values of Pendulum states at discount 0.99",
        parts=(
            Part(name="reference", minutes=3.0, compute=reference),
            Part(name="simulated", minutes=1.0, compute=simulated),
            Part(name="one-pass", minutes=2.0, compute=partial(modelled, shorter=False)),
            Part(name="rollouts", minutes=4.0, compute=partial(modelled, shorter=True)),
            Part(name="nine", minutes=1.0, compute=nine),
        ),
        plot=plot,
        markdown=markdown,
    )


def asked_states() -> Array:
    """(n, 2) of the maps: every angle at every velocity, velocities fastest."""
    mesh = np.meshgrid(ANGLES, VELOCITIES, indexing="ij")
    return np.stack([axis.ravel() for axis in mesh], axis=-1)


def reference(settings: StudySettings) -> dict[str, Any]:
    """Bellman iteration on the grid: the policy's values and the best ones; rollouts as a check."""
    env, policy = PendulumEnv(reward="arrival"), load_policy(settings, "pendulum")
    assert isinstance(policy, SAC), "the shipped policies are"
    points = torch.from_numpy(env.observe(GRID.points)).float()
    actions, weights = policy.action_nodes(points, NODES)
    torques = np.linspace(-2, 2, 9)[:, None]
    states, part = asked_states(), {}
    for key, (_, reward) in REWARDS.items():
        own = iterate_values(
            tabulate(env, GRID, actions.double().numpy(), reward),
            DISCOUNT,
            weights=weights.double().numpy(),
            tolerance=0.01,
        )
        best = iterate_values(tabulate(env, GRID, torques, reward), DISCOUNT, tolerance=0.01)
        simulated, error = _simulated(settings, np.array(NINE), reward, ROLLOUTS)
        part[key] = {
            "policy": _rounded(GRID.read(own, states)),
            "best": _rounded(GRID.read(best, states)),
            "nine": _rounded(GRID.read(own, np.array(NINE))),
            "nine_rollouts": _rounded(simulated),
            "nine_standard_errors": _rounded(error),
        }
    return {"grid": list(GRID.counts), "nodes": NODES, "rollouts": ROLLOUTS, **part}


def simulated(settings: StudySettings) -> dict[str, Any]:
    """The same values by rollouts of the policy: the grid smears where neighbors part ways."""
    part: dict[str, Any] = {"rollouts": MAP_ROLLOUTS}
    for key, (_, reward) in REWARDS.items():
        values, error = _simulated(settings, asked_states(), reward, MAP_ROLLOUTS)
        part[key] = {"values": _rounded(values), "largest_standard_error": float(error.max())}
    return part


def _simulated(
    settings: StudySettings, states: Array, reward: Callable[[Array], Array], n: int
) -> tuple[Array, Array]:
    """Values (states,) by n rollouts of the policy from each, and their standard errors."""
    simulator = ClosedFormSimulator(PendulumEnv(reward="arrival"))
    policy = load_policy(settings, "pendulum")
    generator = torch.Generator().manual_seed(settings.seed)
    rows = np.repeat(states, n, axis=0)
    first = policy.explore(torch.from_numpy(simulator.observe(rows)).float(), generator)
    futures = simulate(
        simulator,
        policy.explore,
        rows,
        first.double().numpy(),
        n_steps=steps_until(DISCOUNT),
        generator=generator,
    )
    rewards = np.asarray(reward(futures.observations.double().numpy()))
    values = rewards @ DISCOUNT ** np.arange(rewards.shape[1])
    per_state = values.reshape(len(states), n)
    return per_state.mean(axis=1), per_state.std(axis=1, ddof=1) / n**0.5


def modelled(settings: StudySettings, *, shorter: bool) -> dict[str, Any]:
    """Maps from the model: one pass at 0.99, or rollouts at 0.95 weighted to 0.99 (Theorem 1)."""
    model, training = _model(settings)
    policy = load_policy(settings, "pendulum")
    observation = torch.from_numpy(PendulumEnv().observe(asked_states())).float()
    found: dict[str, list[float]] = {key: [] for key in REWARDS}
    asked, draws = (SHORTER, ROLLOUT_DRAWS) if shorter else (DISCOUNT, DRAWS)
    n_steps = steps_to_cover(SHORTER, DISCOUNT) if shorter else 1
    for row in observation:
        # the same noise everywhere, so that what it adds is nearly the same in all states
        generator = torch.Generator().manual_seed(settings.seed)
        rows = row.expand(draws, -1)
        states = rollout(
            AtDiscount(model, asked),
            policy.explore,
            rows,
            policy.explore(rows, generator),
            n_steps=n_steps,
            generator=generator,
        )  # (n_steps, draws, 1, O)
        for key, (_, reward) in REWARDS.items():
            values = estimate_value(
                states, partial(_tensor_reward, reward), discount=asked, target=DISCOUNT
            )
            found[key].append(float(values.mean()))
    maps = {key: _rounded(np.array(values)) for key, values in found.items()}
    facts = {"model_discount": asked, "steps": n_steps, "draws": draws}
    return {"training": training, **facts, "maps": maps}


def nine(settings: StudySettings) -> dict[str, Any]:
    """Samples from nine starts, of the model and of simulation."""
    model, _ = _model(settings)
    questions = pose(
        ClosedFormSimulator(PendulumEnv()),
        load_policy(settings, "pendulum"),
        np.array(NINE),
        settings.seed,
    )
    drawn = questions.predict(model, DISCOUNT, settings.seed)
    true = questions.occupancy(DISCOUNT, settings.seed + 1, 400)
    return {
        "starts": [shown_points("pendulum", row[None])[0] for row in questions.observation],
        "model": [shown_points("pendulum", row) for row in drawn],
        "simulation": [shown_points("pendulum", row) for row in true],
    }


class AtDiscount(OccupancyModel):
    """A discount-conditioned model that is asked for one discount."""

    def __init__(self, model: GammaModel, discount: float) -> None:
        self.model, self.discount = model, discount

    def sample(
        self,
        observation: Tensor,
        action: Tensor,
        n_samples: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.model.sample(observation, action, n_samples, generator, discount=self.discount)


def _model(settings: StudySettings) -> tuple[GammaModel, dict[str, Any]]:
    return trained_model(
        settings,
        "gamma/pendulum-td2-all",
        key="pendulum-td2-all",
        core_seconds=ALL_SECONDS["pendulum"],
        model=MATCHING,
    )


def _tensor_reward(reward: Callable[[Array], Array], states: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(reward(states.double().numpy()))).to(states)


def _rounded(values: Array) -> list[float]:
    return np.round(values, 3).tolist()


def scores(parts: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """For each way and reward: rank correlation and errors against the grid, and the rank
    correlation with rollouts."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for way in ("one-pass", "rollouts"):
        if way in parts and "reference" in parts:
            found[way] = {}
            for key in REWARDS:
                guess = np.array(parts[way]["maps"][key])
                found[way][key] = _compared(guess, parts["reference"][key]["policy"])
                if part := parts.get("simulated"):
                    other = _compared(guess, part[key]["values"])
                    found[way][key] |= {
                        "rank_simulated": other["rank"],
                        "mean_simulated": other["mean"],
                    }
    return found


def _compared(guess: Array, true: ArrayLike) -> dict[str, float]:
    error = guess - np.asarray(true)
    return {
        "rank": rank_correlation(guess, true),
        "mean": float(np.abs(error).mean()),
        "largest": float(np.abs(error).max()),
        "bias": float(error.mean()),
        "range": float(np.ptp(true)),
    }


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Predictions from nine starts, and maps."""
    figures = {}
    if part := parts.get("nine"):
        figures["nine"] = _draw_nine(part)
    if "reference" in parts and "one-pass" in parts:
        figures["maps"] = _draw_maps(parts)
    return figures


def _draw_nine(part: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(12, 6.2), dpi=130, layout="constrained")
    halves: Any = figure.subfigures(1, 2)
    for half, key in zip(halves, ("model", "simulation"), strict=True):
        axes = half.subplots(3, 3, sharex=True, sharey=True).ravel()
        for axis, points, start in zip(axes, part[key], part["starts"], strict=True):
            draw_panel(axis, "pendulum", points, start, "", "")
        half.suptitle(
            f"{'one pass of the model' if key == 'model' else key}, discount {DISCOUNT}",
            fontsize=11,
            color=INK,
        )
        half.supxlabel("angle (0 = upright)", fontsize=9, color=MUTED)
        half.supylabel("velocity", fontsize=9, color=MUTED)
    return figure


def _draw_maps(parts: Mapping[str, Any]) -> Figure:
    ways = [way for way in ("one-pass", "rollouts") if way in parts]
    figure = Figure(figsize=(4.1 * (len(ways) + 1), 6.6), dpi=130, layout="constrained")
    axes = figure.subplots(len(REWARDS), len(ways) + 1, sharex=True, sharey=True)
    titles = {"one-pass": "one pass of the gamma-model", "rollouts": "gamma-rollouts from 0.95"}
    measured = scores(parts)
    for row, (key, (name, _)) in zip(axes, REWARDS.items(), strict=True):
        true = np.array(parts["reference"][key]["policy"])
        maps = [(titles[way], parts[way]["maps"][key]) for way in ways] + [("grid", true)]
        image: Any = None
        for axis, (title, values) in zip(row, maps, strict=True):
            shape = (len(ANGLES), len(VELOCITIES))
            image = axis.imshow(
                np.array(values).reshape(shape).T,
                origin="lower",
                aspect="auto",
                extent=(-np.pi, np.pi, VELOCITIES[0] - 0.375, VELOCITIES[-1] + 0.375),
                vmin=true.min(),
                vmax=true.max(),
                cmap="viridis",
            )
            axis.plot(*np.array(NINE).T, "o", ms=5, mfc="none", mec="white", mew=1.1)
            axis.set_title(title if title != "grid" else "Bellman iteration", fontsize=10)
        for axis, way in zip(row, ways, strict=False):
            note = f"rank correlation {measured[way][key]['rank']:.3f}"
            axis.text(0.03, 0.04, note, transform=axis.transAxes, fontsize=8, color="white")
        row[0].set_ylabel(f"{name}\nvelocity")
        figure.colorbar(image, ax=row[-1], shrink=0.9)
    for axis in axes[-1]:
        axis.set_xlabel("angle (0 = upright)")
    return figure


def markdown(parts: Mapping[str, Any]) -> str:
    """Rank correlations and errors of the maps."""
    found = scores(parts)
    if not found:
        return ""
    lines = [
        f"Values of {len(ANGLES) * len(VELOCITIES)} states at discount {DISCOUNT} against Bellman "
        f"iteration of the same policy on a grid of {GRID.counts[0]} x {GRID.counts[1]}, and "
        "against rollouts from each:",
        "",
        "| reward | values from | rank correlation, grid | rollouts | mean error, grid | "
        "rollouts | largest | bias | range |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, (name, _) in REWARDS.items():
        for way, rows in found.items():
            row, steps = rows[key], parts[way]["steps"]
            label = "one pass" if way == "one-pass" else f"{steps} steps at {SHORTER}"
            rank, mean = row.get("rank_simulated"), row.get("mean_simulated")
            lines.append(
                f"| {name} | {label} | {row['rank']:.3f} | {'–' if rank is None else f'{rank:.3f}'}"
                f" | {row['mean']:.2f} | {'–' if mean is None else f'{mean:.2f}'} | "
                f"{row['largest']:.2f} | {row['bias']:+.2f} | {row['range']:.1f} |"
            )
    lines += ["", _check(parts["reference"]), *_check_map(parts)]
    return "\n".join(lines)


def _check_map(parts: Mapping[str, Any]) -> list[str]:
    if "simulated" not in parts:
        return []
    ranks = [
        rank_correlation(parts["reference"][key]["policy"], parts["simulated"][key]["values"])
        for key in REWARDS
    ]
    return [
        "",
        f"Over the whole map, grid and {parts['simulated']['rollouts']} rollouts a state have rank "
        f"correlations of {' and '.join(f'{rank:.3f}' for rank in ranks)}.",
    ]


def _check(part: Mapping[str, Any]) -> str:
    gaps = []
    for key in REWARDS:
        row = part[key]
        gap = np.abs(np.array(row["nine"]) - np.array(row["nine_rollouts"]))
        gaps.append(f"{gap.max():.2f} (largest standard error {max(row['nine_standard_errors'])})")
    return (
        f"The grid itself against {part['rollouts']} rollouts from each of the nine starts, "
        f"largest gap: {' and '.join(gaps)}."
    )
