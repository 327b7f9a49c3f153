"""What the states of all token models share: the record of tokens, the prefix, sliding.

A state first takes in its prefix (one sequence for each environment), then grows beams. Tokens are
handed to the network as late as possible, so that sequences which are dropped before their next
prediction cost nothing. A network offers three ways to take them in: ``extend`` the shared prefix,
``step`` by one token a beam, and ``restart`` from whole sequences.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from forethought.data.trajectory_tokens import UNKNOWN, TrajectoryTokens
from forethought.models.base import TokenState
from forethought.nn.beam_cache import BeamCache
from forethought.nn.gpt import GPT


@dataclass(frozen=True)
class Condition:
    """What whole sequences are seen under.

    goal: (batch, goal columns) tokens put in front;  map: (batch, width) added to every embedding
    cells: (batch, cells, channels) what is seen of the map in each of its cells
    """

    goal: Tensor | None = None
    map: Tensor | None = None
    cells: Tensor | None = None

    def repeat(self, times: int) -> Condition:
        """Each sequence ``times`` times; without ``cells``, which sequences share."""
        goal, seen = (
            None if x is None else x.repeat_interleave(times, dim=0) for x in (self.goal, self.map)
        )
        return Condition(goal, seen)


UNCONDITIONED = Condition()


class SequenceState(TokenState):
    """Record and bookkeeping; subclasses say how their network takes tokens in.

    layout: columns of a transition;  gpt: whose cache is used
    window: transitions that fit the network, or 0 if it can roll on for ever
    cache, crop, expected: as in ``TokenModel.begin``; here ``expected`` counts the cache's tokens
    """

    def __init__(  # noqa: PLR0913  everything a search needs to know, told once
        self,
        layout: TrajectoryTokens,
        gpt: GPT,
        batch: int,
        *,
        condition: Condition,
        window: int,
        cache: bool,
        crop: int,
        expected: int,
    ) -> None:
        if crop and not window:
            raise ValueError(f"crop is {crop}; sequences that roll on for ever need none, use 0")
        if crop and not 2 <= crop <= window:
            raise ValueError(
                f"crop is {crop} transitions; use 0 (refuse sequences longer than the context) or "
                f"2 to {window}, the transitions this model was built for"
            )
        self.layout, self.gpt, self.condition = layout, gpt, condition
        self.window, self.crop = window, crop
        device = gpt.norm.weight.device
        # room for all tokens that are expected, and for a longest history
        room = max(expected, 1) + window * layout.columns
        self._record = torch.zeros(batch, 1, room, dtype=torch.int64, device=device)
        self._recorded = 0
        self.prefix = torch.zeros(batch, 0, dtype=torch.int64, device=device)
        self.network_calls = 0
        self.cache: BeamCache | None = gpt.new_cache(batch, expected) if cache else None
        self.count = 0  # tokens of the prefix and after it
        self.dropped = 0  # transitions that sliding has dropped
        self._sealed = False
        self._logits: Tensor | None = None

    @property
    def tokens(self) -> Tensor:
        return self._record[:, :, : self._recorded]

    @property
    def column(self) -> int:
        """The next token's column."""
        return self.count % self.layout.columns

    def load_prefix(self, known: Tensor, neglected: int | None) -> None:
        """Take in the prefix (batch, n); ``UNKNOWN`` tokens become the model's likeliest ones.

        neglected: a column whose tokens nothing attends to; it need not be filled in with care
        """
        known = known.clone()
        columns = torch.arange(known.shape[1], device=known.device) % self.layout.columns
        if neglected is not None:
            here = known[:, columns == neglected]
            known[:, columns == neglected] = here.clamp(min=0)
        missing = (known == UNKNOWN).any(dim=0).nonzero()[:, 0].tolist()
        taken = 0
        for place in missing:
            self._take(known[:, None, taken:place])
            likeliest = self.next_logits()[:, 0, : self.layout.legal(self.column)].argmax(-1)
            token = known[:, place]
            known[:, place] = torch.where(token == UNKNOWN, likeliest, token)
            taken = place
        self._take(known[:, None, taken:])
        self._flush()
        self.prefix, self._recorded = self.tokens[:, 0].clone(), 0
        self._sealed = True

    def next_logits(self) -> Tensor:
        if self._logits is None:
            self._hand_over()
            self._logits = self._predict()
        return self._logits

    def append(self, tokens: Tensor) -> None:
        if tokens.shape != self._record.shape[:2]:
            raise ValueError(
                f"append takes one token for each sequence, {tuple(self._record.shape[:2])}; got "
                f"shape {tuple(tokens.shape)}"
            )
        self.layout.check_tokens(tokens, self.column)
        self._hand_over()
        self._take(tokens[..., None])

    def select(self, indices: Tensor) -> None:
        if indices.shape[0] != len(self.tokens) or not indices.shape[1]:
            raise ValueError(
                f"select takes indices ({len(self.tokens)}, new beams), at least one; got shape "
                f"{tuple(indices.shape)}"
            )
        if int(indices.min()) < 0 or int(indices.max()) >= self.beams:
            raise ValueError(
                f"select: there is no sequence {int(indices.min())} or {int(indices.max())} "
                f"among {self.beams}"
            )
        env = torch.arange(len(indices), device=indices.device)[:, None]
        record = self.tokens.new_empty(*indices.shape, self._record.shape[2])
        record[..., : self._recorded] = self.tokens[env, indices]
        self._record = record
        if self._logits is not None:
            self._logits = self._logits[env, indices]
        if self.cache is not None:
            self.cache.select(indices)
        self._select(env, indices)

    def latest(self, count: int) -> Tensor:
        """(batch, beams, count): the last tokens of every sequence, its prefix included."""
        own = min(count, self._recorded)
        tokens = self._record[:, :, self._recorded - own : self._recorded]
        if own == count:
            return tokens
        before = self.prefix[:, self.prefix.shape[1] - (count - own) :]
        return torch.cat([before[:, None].expand(-1, self.beams, -1), tokens], dim=2)

    def _take(self, tokens: Tensor) -> None:
        """Record tokens (batch, beams, n) and let the network have them when it next must."""
        count = tokens.shape[-1]
        if not count:
            return
        end = self._recorded + count
        if end > self._record.shape[2]:
            more = self._record.new_zeros(*self._record.shape[:2], max(end, self._record.shape[2]))
            self._record = torch.cat([self._record, more], dim=2)
        self._record[..., self._recorded : end] = tokens
        self._recorded = end
        self._note(tokens)
        self.count += count
        self._logits = None

    def _hand_over(self) -> None:
        """Let the network have all tokens; where they outgrow its window, slide or refuse."""
        limit = self.window * self.layout.columns
        if limit and self.count - self.dropped * self.layout.columns >= limit:
            if not self.crop:
                raise ValueError(
                    f"sequence longer than the context: this model was trained on windows of "
                    f"{self.window} transitions, {limit} tokens, past ones included. Plan with a "
                    "shorter horizon or history, train on longer windows, or ask for crop, which "
                    "drops the oldest transitions and computes the rest anew."
                )
            self._slide()
        self._flush()

    def _slide(self) -> None:
        """Go on with the latest ``crop - 1`` whole transitions and the one to come."""
        assert self.column == 0, "sequences outgrow the window between transitions"
        self.dropped = self.count // self.layout.columns - (self.crop - 1)
        self._restart()

    def kept(self) -> Tensor:
        """(batch, beams, n): the tokens that the network sees."""
        return self.latest(self.count - self.dropped * self.layout.columns)

    @abstractmethod
    def _note(self, tokens: Tensor) -> None:
        """Tokens (batch, beams, n) from column ``column`` on were recorded."""

    @abstractmethod
    def _flush(self) -> None:
        """Hand the network what it has not seen yet."""

    @abstractmethod
    def _predict(self) -> Tensor:
        """(batch, beams, V) logits, or V + 1 where an episode can end, everything handed over."""

    @abstractmethod
    def _restart(self) -> None:
        """Compute anew from ``kept()``; nothing else is remembered."""

    @abstractmethod
    def _select(self, env: Tensor, indices: Tensor) -> None:
        """Reorder the subclass's own tensors; ``tensor[env, indices]`` does it."""
