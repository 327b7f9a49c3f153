"""Beam search over tokens: Algorithm 4 for imitation and goals, and its version for rewards.

Algorithm 4 keeps, after every token, the B likeliest sequences. With rewards, whole transitions are
the vocabulary (thesis Section 4.3): the model's likelihood decides which transitions are tried, and
the sequences with the highest estimate of

    sum_{k<t} discount^k r_k + discount^t R_t                       (R_t contains r_t), or
    sum_{k<=t} discount^k r_k + discount^(t+1) V_t                  (V_t starts after r_t)

are kept, so that no reward counts twice. A critic Q(s_t, a_t) can stand for R_t (Section 4.4).
Rewards and rewards-to-go are expectations under the model's full distributions. After a sampled
stop token a sequence has no more of either. Differs from released code, which lets every column
predict the end and drops that mass from the expectations, so that a likely end lowers the value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from forethought.data.trajectory_tokens import TrajectoryTokens
from forethought.models.base import Generator, TokenState

Critic = Callable[[Tensor, Tensor], Tensor]
"""Value (n,) of observations (n, O) and actions (n, A), in environment units, higher is better."""


@dataclass(frozen=True, kw_only=True)
class CutOffs:
    """Which tokens may be sampled; a settings group of the planner.

    Differs from nucleus sampling: ``cdf`` removes the *least* likely tokens up to that much mass,
    as released code does, so that 0.6 keeps about the top 40 %.
    """

    top: int = 0
    """only this many likeliest tokens; 1 = greedy, 0 = all"""
    cdf: float = 0.0
    """remove the least likely tokens whose mass adds up to less than this"""

    def __post_init__(self) -> None:
        if self.top < 0 or not 0 <= self.cdf < 1:
            raise ValueError(
                f"cut-offs top {self.top} and cdf {self.cdf} would leave no token, and the beam "
                "empty; use top >= 0 (0 = no limit) and 0 <= cdf < 1"
            )


@dataclass(frozen=True, kw_only=True)
class RewardSearch:
    """Settings of the search for rewards; a settings group of the planner."""

    expand: int = 2
    """continuations sampled for each sequence at each transition (released: n_expand)"""
    observations: CutOffs = CutOffs(top=1)
    actions: CutOffs = CutOffs(cdf=0.6)
    rewards: CutOffs = CutOffs(top=1)
    """of the reward and reward-to-go tokens that are fed back; ranking uses expectations"""
    estimate: Literal["mean", "percentile"] = "mean"
    """of reward and reward-to-go under the model's distribution of them"""
    percentile: float = 0.5
    discount: float = 0.99

    def __post_init__(self) -> None:
        if self.expand < 1 or not 0 < self.percentile <= 1 or not 0 <= self.discount <= 1:
            raise ValueError(
                f"reward search needs expand >= 1, 0 < percentile <= 1 and 0 <= discount <= 1; "
                f"got {self.expand}, {self.percentile} and {self.discount}"
            )


def beam_search(state: TokenState, n_bins: int, length: int, width: int) -> Tensor:
    """Algorithm 4: grows ``state`` by ``length`` tokens, keeping the ``width`` likeliest sequences.

    n_bins: tokens of the vocabulary, without the stop token
    Returns log-probabilities (batch, beams), best first; ``state.tokens`` holds the sequences.
    Raises ValueError if no sequence has a positive probability.
    """
    score = torch.zeros(state.tokens.shape[:2], device=state.tokens.device)  # line 2
    for _ in range(length):  # line 3
        log_p = state.next_logits().log_softmax(dim=-1)[..., :n_bins]  # a plan does not stop
        candidates = score[..., None].to(log_p.dtype) + log_p  # line 4, (B, K, V)
        legal = int(candidates.isfinite().flatten(1).sum(dim=1).min())
        kept = min(width, legal)
        _refuse_empty(kept)
        score, chosen = candidates.flatten(1).topk(kept, dim=1)  # line 5
        state.select(chosen // log_p.shape[-1])
        state.append(chosen % log_p.shape[-1])
    return score  # line 7: the first one


@dataclass
class Imagined:
    """What a search for rewards has found, best first: scores (batch, beams), -inf for places that
    no sequence deserved, and rewards (batch, beams, horizon). The tokens are in the state."""

    score: Tensor
    rewards: Tensor


def reward_search(
    state: TokenState,
    layout: TrajectoryTokens,
    horizon: int,
    width: int,
    settings: RewardSearch,
    *,
    generator: Generator = None,
    critic: Critic | None = None,
    observation: Tensor | None = None,
) -> Imagined:
    """Beam search with transitions as vocabulary and rewards as likelihood.

    ``state`` ends with an observation; it grows by ``horizon`` transitions but for the last
    observation. critic, observation: the value in place of reward-to-go tokens, and the present
    observation (batch, O) it is first asked about.
    """
    if layout.reward_column is None and critic is None:
        raise ValueError(
            "searching for rewards needs a model with reward tokens (model.reward_token) or a "
            "critic; use planner.search likelihood for imitation"
        )
    noise = _Noise(generator, state.tokens)
    search = _Search(state, layout, settings, noise)
    for t in range(horizon):
        state.next_logits()  # before the copies are made, which it is the same for
        search.expand(width if t == 0 else 1)
        search.sample(layout.spaces.action_dim, settings.actions)
        reward = search.outcome(layout.reward_column)
        to_go = search.outcome(layout.return_column)
        if critic is not None:
            to_go = search.ask(critic, observation if t == 0 else None)
        score = search.score(t, reward, to_go, by_critic=critic is not None)
        search.keep(score, reward, width)
        if t < horizon - 1:
            search.sample(layout.action_start, settings.observations)
    return Imagined(search.best, search.rewards)


class _Search:
    """The beams' rewards so far, and the steps of one transition."""

    def __init__(
        self, state: TokenState, layout: TrajectoryTokens, settings: RewardSearch, noise: _Noise
    ) -> None:
        self.state, self.layout, self.settings, self.noise = state, layout, settings, noise
        shape = state.tokens.shape[:2]
        values = layout.tokenizer.values
        self.total = values.new_zeros(shape)  # discounted rewards of all transitions but this one
        self.rewards = values.new_zeros((*shape, 0))
        self.ended = torch.zeros(shape, dtype=torch.bool, device=values.device)
        self.any_ended = False
        self.best = self.total

    def expand(self, beginners: int) -> None:
        """Copy every sequence ``expand`` times; the first one for all beams."""
        times = self.settings.expand * beginners
        batch, beams = self.total.shape
        order = torch.arange(beams, device=self.total.device).repeat_interleave(times)
        self._select(order.expand(batch, -1))

    def sample(self, count: int, cut_offs: CutOffs) -> None:
        """Append ``count`` tokens; sequences that have ended only get placeholders."""
        for _ in range(count):
            logits = self.state.next_logits()
            tokens = sample_tokens(logits, cut_offs, self.noise)
            if self.any_ended:
                tokens = tokens.masked_fill(self.ended, 0)
            if logits.shape[-1] > self.layout.stop:  # the column that can tell an end
                self.ended = self.ended | (tokens == self.layout.stop)
                self.any_ended = bool(self.ended.any())
            self.state.append(tokens)

    def outcome(self, column: int | None) -> Tensor | None:
        """Estimate (batch, beams) of a reward or reward-to-go, whose token is appended."""
        if column is None:
            return None
        logits = self.state.next_logits()
        tokens = sample_tokens(logits, self.settings.rewards, self.noise)
        self.state.append(tokens)
        estimate = self._estimate(logits.softmax(dim=-1)[..., : self.layout.n_bins], column)
        return estimate.masked_fill(self.ended, 0.0)

    def _estimate(self, probabilities: Tensor, column: int) -> Tensor:
        tokenizer = self.layout.tokenizer
        if self.settings.estimate == "mean":
            return tokenizer.expectation(probabilities, column)
        return tokenizer.percentile(probabilities, self.settings.percentile, column)

    def ask(self, critic: Critic, observation: Tensor | None) -> Tensor:
        """The critic's value (batch, beams) of the transition just sampled."""
        layout, columns = self.layout, self.layout.columns
        outcomes = columns - layout.action_end
        tokens = self.state.latest(columns)[..., : columns - outcomes]
        numbers = layout.decode(tokens).flatten(0, 1)
        seen, action = numbers[:, : layout.action_start], numbers[:, layout.action_start :]
        if observation is not None:
            seen = observation.to(seen).repeat_interleave(self.state.beams, dim=0)
        value = critic(seen, action).view(tokens.shape[:2]).to(self.total)
        return value.masked_fill(self.ended, 0.0)

    def score(
        self, t: int, reward: Tensor | None, to_go: Tensor | None, *, by_critic: bool
    ) -> Tensor:
        """(batch, beams) rewards so far and to go; moves ``total`` past this reward."""
        discount = self.settings.discount
        before = self.total
        if reward is not None:
            self.total = before + discount**t * reward
        if to_go is None:
            return self.total
        if by_critic or self.layout.returns == "with_reward":
            return before + discount**t * to_go
        return self.total + discount ** (t + 1) * to_go

    def keep(self, score: Tensor, reward: Tensor | None, width: int) -> None:
        """Keep the ``width`` best sequences, best first; those without a finite score stay last."""
        usable = score.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        self.best, chosen = usable.topk(min(width, usable.shape[1]), dim=1)
        _refuse_empty(int((self.best[:, 0] > -torch.inf).all()))
        new = torch.zeros_like(score) if reward is None else reward
        self.rewards = torch.cat([self.rewards, new[..., None]], dim=-1)
        self._select(chosen)
        self.total = self.total.masked_fill(self.best == -torch.inf, -torch.inf)

    def _select(self, indices: Tensor) -> None:
        env = torch.arange(len(indices), device=indices.device)[:, None]
        self.state.select(indices)
        self.total, self.ended = self.total[env, indices], self.ended[env, indices]
        self.rewards = self.rewards[env, indices]


def sample_tokens(logits: Tensor, cut_offs: CutOffs, noise: _Noise) -> Tensor:
    """Tokens (batch, beams) from logits (batch, beams, outputs), after the cut-offs. Tokens of
    equal probability are kept or removed together.

    Raises ValueError where no token has a positive probability.
    """
    if cut_offs.top == 1:
        return _likeliest(logits)
    probabilities = logits.softmax(dim=-1)
    if cut_offs.top or cut_offs.cdf:
        least = _least_kept(probabilities, cut_offs)
        probabilities = torch.where(probabilities >= least, probabilities, 0.0)
    mass = probabilities.cumsum(dim=-1)
    total = mass[..., -1:]
    _refuse_empty(int((total > 0).all()))
    # at least the smallest number above 0, so that tokens without mass are never drawn; rounding
    # cannot lead past the last token, for drawn < 1
    drawn = (noise.uniform(total) * total).clamp(min=torch.finfo(total.dtype).tiny)
    return torch.searchsorted(mass, torch.minimum(drawn, total))[..., 0]


def _likeliest(logits: Tensor) -> Tensor:
    """The first of the highest logits; NumPy finds it several times faster on a CPU."""
    if logits.device.type == "cpu":
        table = logits.detach().numpy().reshape(-1, logits.shape[-1])
        tokens = table.argmax(axis=-1)
        _refuse_empty(int(np.isfinite(table[np.arange(len(table)), tokens]).all()))
        return torch.from_numpy(tokens).view(logits.shape[:-1])
    highest, tokens = logits.max(dim=-1)
    _refuse_empty(int(highest.isfinite().all()))
    return tokens


def _least_kept(probabilities: Tensor, cut_offs: CutOffs) -> Tensor:
    """(..., 1) the smallest probability that the cut-offs keep."""
    ascending = _sorted(probabilities)
    first = ascending.new_zeros(ascending.shape[:-1], dtype=torch.int64)
    if cut_offs.cdf:
        first = (ascending.cumsum(dim=-1) < cut_offs.cdf).sum(dim=-1)
    count = ascending.shape[-1]
    if cut_offs.top:
        first = first.clamp(min=count - cut_offs.top)
    return ascending.gather(-1, first.clamp(max=count - 1)[..., None])


def _sorted(values: Tensor) -> Tensor:
    """Ascending; NumPy sorts without indices, and several times faster on a CPU."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.detach().numpy(), axis=-1))
    return values.sort(dim=-1).values


def _refuse_empty(kept: int) -> None:
    if not kept:
        raise ValueError(
            "the beam is empty: after the cut-offs no sequence with a positive probability and a "
            "finite score is left. Loosen the cut-offs, and check that model and critic give "
            "finite numbers."
        )


class _Noise:
    """Uniform numbers, from one generator for all environments or one each."""

    def __init__(self, generator: Generator, like: Tensor) -> None:
        alone = not isinstance(generator, Sequence)
        self._generators = [generator] if alone else list(generator)
        if not alone and len(self._generators) != len(like):
            raise ValueError(
                f"{len(self._generators)} generators for {len(like)} environments; give one or "
                "one each"
            )
        self._alone = alone

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in [0, 1) in the shape of ``like`` (batch, ...)."""
        shape = like.shape if self._alone else (1, *like.shape[1:])
        parts = []
        for generator in self._generators:
            device = like.device if generator is None else generator.device
            # always the same numbers, whatever precision the network has
            parts.append(torch.rand(shape, generator=generator, device=device).to(like))
        return torch.cat(parts)
