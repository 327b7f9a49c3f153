"""Laws of the two Trajectory Transformers and their states: caching changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.factored import FactoredTransformerConfig
from forethought.models.token_model import TokenTrajectoryModel
from forethought.models.transformer import TransformerConfig
from forethought.types import Trajectory

TINY = {"context": 2, "horizon": 3, "n_bins": 6, "width": 16, "depth": 2, "heads": 2}
FLAT = TransformerConfig(**TINY)
FACTORED = FactoredTransformerConfig(**TINY, head_width=16)
OPTIONS = {
    "plain": {},
    "released": {"hide_returns": True, "return_token": "without_reward", "stop_token": True},
    "imitation": {"reward_token": False, "return_token": "none", "goal": "final"},
    "map": {
        "reward_token": False,
        "return_token": "none",
        "goal": "final",
        "goal_dims": (1,),
        "map_kinds": 3,
    },
    "hidden": {"hidden_share": 0.5},
    "rotary": {"positions": "rotary"},
    "band": {"positions": "rotary", "band": 1, "hide_returns": True},
}
CASES = {
    f"{name}-{option}": replace(config, **changes)
    for name, config in (("flat", FLAT), ("factored", FACTORED))
    for option, changes in OPTIONS.items()
}
CASES["flat-shared-head"] = replace(FLAT, head="shared")
CASES["factored-places"] = replace(
    FACTORED, **OPTIONS["map"], map_places=(0, 2), map_channels=8, tokenizer="uniform"
)
each_case = pytest.mark.parametrize("case", CASES)
both = pytest.mark.parametrize("config", [FLAT, FACTORED], ids=["flat", "factored"])


def built(config, dataset) -> TokenTrajectoryModel:
    """A model in double precision with weights far from zero, so that mistakes show."""
    torch.manual_seed(0)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.double().eval().requires_grad_(False)


def situation(config, dataset, past: int = 2, batch: int = 3):
    """Histories, observations and goals as ``begin`` takes them, and the table of the windows."""
    window = config.view(dataset)[np.arange(batch) * 7 + 1]
    history = None
    if past or config.map_kinds:
        history = Trajectory(
            observations=window.observations[:, :past],
            actions=window.actions[:, :past],
            times=window.times[:past],
            rewards=window.rewards[:, :past],
            returns_to_go=window.returns_to_go[:, :past],
            context=window.context,
        )
    return history, window.observations[:, past], window.goal


def grow(model, state, steps: int, seed: int = 0, beams: int = 4):
    """Append legal random tokens, expanding and reordering at times; returns all logits."""
    generator = torch.Generator().manual_seed(seed)
    batch, layout = len(state.tokens), model.tokens
    seen = [state.next_logits()]
    for step in range(steps):
        if step % 3 == 0:  # every sequence several times over, then some of them
            order = torch.arange(state.beams).repeat_interleave(2 if state.beams > 1 else beams)
            state.select(order.expand(batch, -1))
        if step % 4 == 3:
            state.select(torch.randint(state.beams, (batch, beams), generator=generator))
        legal = layout.legal((model.tokens.action_start + step) % layout.columns)
        state.append(torch.randint(legal, (batch, state.beams), generator=generator))
        if step % 5 == 4:  # what is pending is selected as well
            state.select(torch.randint(state.beams, (batch, beams), generator=generator))
        if step < steps - 1 or state.column:
            seen.append(state.next_logits())
    return seen


def with_all_outputs(model, logits):
    """As the training forward gives them: no end of an episode but where one can be."""
    missing = model.illegal.shape[1] - logits.shape[-1]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)


@each_case
@pytest.mark.parametrize("past", [0, 2])
def test_cached_decoding_equals_the_full_forward(case, past, dataset):
    config = CASES[case]
    model = built(config, dataset)
    steps = config.horizon * model.tokens.columns - model.tokens.action_start
    given = situation(config, dataset, past)
    states = [model.begin(*given, cache=cache, expected=steps) for cache in (True, False)]
    cached, full = (grow(model, state, steps) for state in states)
    torch.testing.assert_close(states[0].tokens, states[1].tokens)
    for ours, theirs in zip(cached, full, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


@each_case
def test_cached_decoding_equals_the_training_forward(case, dataset):
    config = CASES[case]
    model = built(config, dataset)
    history, observation, goal = situation(config, dataset)
    state = model.begin(history, observation, goal)
    columns, start = model.tokens.columns, model.tokens.action_start
    steps = config.horizon * columns - start
    seen = torch.stack(
        [with_all_outputs(model, x) for x in grow(model, state, steps, beams=1)[:steps]], dim=2
    )
    table = torch.cat([state.prefix[:, None], state.tokens[:, :1]], dim=-1)
    table = table.view(len(observation), config.window, columns)
    condition = model.condition(goal, None if history is None else history.context)
    outputs = model._mask(model.predict_columns(table, condition)).permute(1, 2, 0, 3).flatten(1, 2)
    expected = outputs[:, config.context * columns + start :]
    ours = seen[:, 0, :, : expected.shape[-1]]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-8)


@both
def test_cached_decoding_in_single_precision(config, dataset):
    model = built(config, dataset).float()
    given = situation(config, dataset)
    steps = config.horizon * model.tokens.columns - model.tokens.action_start
    cached, full = (grow(model, model.begin(*given, cache=c), steps) for c in (True, False))
    for ours, theirs in zip(cached, full, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@both
def test_what_all_beams_have_inherited_is_kept_once(config, dataset):
    model = built(config, dataset)
    columns = model.tokens.columns
    states = [model.begin(*situation(config, dataset), cache=c, expected=30) for c in (1, 0)]
    generator = torch.Generator().manual_seed(0)
    for step in range(2 * columns):
        tokens = torch.randint(config.n_bins, (3, 4), generator=generator)
        for state in states:
            if not step:
                state.select(torch.zeros(3, 4, dtype=torch.int64))
            state.append(tokens)
            state.next_logits()
            if step == columns - 3:  # four different sequences
                state.select(torch.tensor([[3, 1, 2, 0]] * 3))
            if step == columns + 3:  # all of one family, another in each environment
                state.select(torch.tensor([[0] * 4, [2] * 4, [3] * 4]))
        if step == columns + 2:
            before = len(states[0].cache.prefix_places)
    assert len(states[0].cache.prefix_places) > before
    assert len(states[0].cache._body_places) < 2 * columns
    torch.testing.assert_close(states[0].next_logits(), states[1].next_logits(), rtol=0, atol=1e-8)


@both
def test_a_batch_of_environments_equals_one_at_a_time(config, dataset):
    model = built(config, dataset)
    history, observation, goal = situation(config, dataset)
    together = model.begin(history, observation, goal).next_logits()
    alone = [model.begin(history[i : i + 1], observation[i : i + 1], None) for i in range(3)]
    apart = torch.cat([state.next_logits() for state in alone])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["flat-plain", "flat-released", "factored-plain"])
def test_sliding_equals_a_new_start_with_the_latest_transitions(case, dataset):
    config = CASES[case]
    model = built(config, dataset)
    columns, start = model.tokens.columns, model.tokens.action_start
    history, observation, goal = situation(config, dataset)
    longer = 2 * config.window * columns
    for cache in (True, False):
        state = model.begin(history, observation, goal, cache=cache, crop=3, expected=longer)
        state.select(torch.zeros(3, 2, dtype=torch.int64))
        generator = torch.Generator().manual_seed(0)
        for _ in range(longer):
            state.append(torch.randint(config.n_bins, (3, 2), generator=generator))
        while state.column:
            state.append(torch.randint(config.n_bins, (3, 2), generator=generator))
        assert state.dropped, "the sequence has outgrown the window"
        table = state.kept().flatten(0, 1).unflatten(1, (-1, columns))
        full = torch.cat([table, torch.zeros(6, 1, columns, dtype=torch.int64)], dim=1)
        expected = model.predict_table(full)[:, -1, 0].view(3, 2, -1)
        ours = state.next_logits()[..., : expected.shape[-1]]
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match="crop is 1 transitions; use 0 .* or 2 to 5"):
        model.begin(history, observation, goal, crop=1)
    assert start == 3


@pytest.mark.parametrize("case", ["flat-band", "factored-band"])
def test_a_rolling_cache_equals_the_full_forward_under_the_same_mask(case, dataset):
    model = built(CASES[case], dataset)
    history, observation, goal = situation(CASES[case], dataset)
    columns = model.tokens.columns
    steps = 9 * model.window * columns  # far beyond the training window
    rolling, full = (
        model.begin(history, observation, goal, cache=c, expected=2 * columns) for c in (1, 0)
    )
    generator = torch.Generator().manual_seed(0)
    for state in (rolling, full):
        state.select(torch.zeros(3, 2, dtype=torch.int64))
    for step in range(steps):
        tokens = torch.randint(6, (3, 2), generator=generator)
        for state in (rolling, full):
            state.append(tokens)
        if step % 41 == 0:
            torch.testing.assert_close(rolling.next_logits(), full.next_logits(), rtol=0, atol=1e-8)
    cache = rolling.cache
    assert cache._body[0][0].shape[3] < cache.length / 2, "what is out of reach was dropped"


@pytest.mark.parametrize("case", ["flat-band", "factored-band"])
def test_a_rolling_cache_forgets_what_was_common_to_all_beams_too(case, dataset):
    model = built(CASES[case], dataset)
    history, observation, goal = situation(CASES[case], dataset)
    steps = 9 * model.window * model.tokens.columns
    rolling, full = (model.begin(history, observation, goal, cache=c) for c in (1, 0))
    generator = torch.Generator().manual_seed(0)
    most = 0
    for step in range(steps):
        beams = rolling.beams
        tokens = torch.randint(6, (3, beams), generator=generator)
        chosen = torch.randint(beams, (3, 3), generator=generator)
        for state in (rolling, full):
            state.append(tokens)
            if step % 5 == 0:
                state.select(chosen)  # families die out, and what is common moves to the prefix
        if step % 41 == 0:
            torch.testing.assert_close(rolling.next_logits(), full.next_logits(), rtol=0, atol=1e-8)
        most = max(most, len(rolling.cache.prefix_places))
    assert most < steps / 4


@both
def test_a_token_depends_on_all_before_it_and_on_none_after(config, dataset):
    model = built(config, dataset).requires_grad_(False)
    batch = config.view(dataset)[np.array([3])]
    table = model.tokens.encode(batch)
    before = model.predict_table(table).flatten(1, 2)[0]
    flat = table.flatten()
    for place in (0, 4, 13, 20):
        other = flat.clone()
        other[place] = (other[place] + 1) % config.n_bins
        after = model.predict_table(other.view(table.shape)).flatten(1, 2)[0]
        changed = (after - before).abs().amax(dim=-1) > 1e-12
        assert not changed[: place + 1].any() and changed[place + 1 :].all()


@pytest.mark.parametrize("name", ["flat-released", "factored-released"])
def test_hidden_returns_influence_no_other_transition(name, dataset):
    model = built(CASES[name], dataset)
    table = model.tokens.encode(CASES[name].view(dataset)[np.array([3])])
    before = model.predict_table(table)
    table[:, 1, model.tokens.return_column] = 5 - table[:, 1, model.tokens.return_column]
    after = model.predict_table(table)
    first = 2 if name.startswith("factored") else 3  # flat: the token's own place predicts s_2^0
    torch.testing.assert_close(after[:, first:], before[:, first:], rtol=0, atol=1e-12)
    torch.testing.assert_close(after[:, 2, 1:], before[:, 2, 1:], rtol=0, atol=1e-12)


@both
def test_unknown_rewards_of_the_past_are_filled_with_the_likeliest(config, dataset):
    model = built(config, dataset)
    history, observation, _ = situation(config, dataset)
    bare = Trajectory(
        observations=history.observations, actions=history.actions, times=history.times
    )
    prefixes = []
    for cache in (True, False):
        state = model.begin(bare, observation, cache=cache)
        prefixes.append(state.prefix)
    torch.testing.assert_close(prefixes[0], prefixes[1])
    columns, reward = model.tokens.columns, model.tokens.reward_column
    table = prefixes[0][:, : 2 * columns].view(3, 2, columns)
    for row in range(2):
        predicted = model.predict_table(table)[:, row]
        for column in (reward, reward + 1):
            torch.testing.assert_close(table[:, row, column], predicted[:, column].argmax(-1))


def test_stop_is_learned_where_episodes_end_by_themselves_only(dataset):
    model = built(CASES["flat-released"], dataset)
    batch = CASES["flat-released"].view(dataset)[np.arange(len(CASES["flat-plain"].view(dataset)))]
    targets, weight = model.targets(batch)
    stopped = targets == model.tokens.stop
    assert torch.equal(stopped[..., 0], batch.terminated) and not stopped[..., 1:].any()
    assert stopped.any() and bool((~batch.terminated & ~batch.action_mask).any())
    of_stops = weight[stopped[..., 0]]
    assert bool((of_stops[:, 0] == 1).all()) and not of_stops[:, 1:].any()
    assert bool(batch.observation_mask[batch.terminated].all())


def test_terminal_rewards_are_replaced_or_added_and_returns_follow(dataset):
    config = replace(FLAT, terminal_reward="replace", terminal_amount=-50.0, discount=0.5)
    changed = config.view(dataset).dataset
    last = dataset.starts[1:] - 2
    for how, expected in (("replace", -50.0), ("add", dataset.rewards[last] - 50.0)):
        changed = replace(config, terminal_reward=how).view(dataset).dataset
        expected = np.where(dataset.terminated, expected, dataset.rewards[last])
        np.testing.assert_allclose(changed.rewards[last], expected, rtol=1e-6)
    kept = np.setdiff1d(np.arange(len(dataset.rewards)), last)
    np.testing.assert_array_equal(changed.rewards[kept], dataset.rewards[kept])


def test_return_tokens_with_and_without_the_reward_beside_them(dataset):
    view = FLAT.view(dataset)
    batch = view[np.array([5])]
    tables = []
    for returns in ("with_reward", "without_reward"):
        config = replace(FLAT, return_token=returns, n_bins=1000, tokenizer="uniform")
        model = built(config, dataset)
        column = model.tokens.return_column
        numbers = model.tokens.decode(model.tokens.encode(batch).double().long())
        tables.append(numbers[0, :-1, column])
    mask = batch.action_mask[0, :-1]
    rewards, returns = batch.rewards[0, :-1], batch.returns_to_go[0, :-1]
    torch.testing.assert_close(tables[0][mask].float(), returns[mask], atol=0.1, rtol=0)
    rest = (returns - rewards) / FLAT.discount
    torch.testing.assert_close(tables[1][mask].float(), rest[mask], atol=0.1, rtol=0)


def discrete_data() -> EpisodeDataset:
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            rng.normal(size=(9, 3)).astype(np.float32),
            rng.integers(0, 4, size=(8, 1)),
            rng.normal(size=8),
        )
        for _ in range(4)
    ]
    return EpisodeDataset.from_episodes(episodes, n_actions=4)


@both
def test_discrete_actions_are_tokens_of_their_own(config, dataset):
    data = discrete_data()
    model = built(config, data)
    batch = config.view(data)[np.arange(4)]
    table = model.tokens.encode(batch)
    torch.testing.assert_close(table[..., 3:4], batch.actions.long())
    loss, _ = model.loss(batch)
    assert bool(loss.isfinite())
    state = model.begin(None, batch.observations[:, 0])
    logits = state.next_logits()
    assert bool((logits[..., 4:] == -torch.inf).all() & logits[..., :4].isfinite().all())


# ----------------------------------------------------------------------------------------- errors


@both
def test_sequences_longer_than_the_context_are_refused(config, dataset):
    model = built(config, dataset)
    history, observation, _ = situation(config, dataset)
    state = model.begin(history, observation)
    for _ in range(config.horizon * model.tokens.columns - 3):
        state.append(torch.zeros(3, 1, dtype=torch.int64))
    for further in (state.next_logits, lambda: state.append(torch.zeros(3, 1, dtype=torch.int64))):
        with pytest.raises(ValueError, match="longer than the context.*windows of 5 transitions"):
            further()
    long = config.view(dataset)[np.arange(3)]
    with pytest.raises(ValueError, match="longer than the context: 5 past transitions"):
        model.begin(long, observation)


@both
def test_unknown_tokens_and_sequences_are_refused(config, dataset):
    model = built(config, dataset)
    history, observation, _ = situation(config, dataset)
    state = model.begin(history, observation)
    for token in (-1, config.n_bins + 2):
        with pytest.raises(ValueError, match=f"dimension 0: got {token}; known are 0 to 5"):
            state.append(torch.full((3, 1), token))
    chooser = built(config, discrete_data())
    with pytest.raises(ValueError, match="got 4; known are 0 to 3, 6"):
        chooser.tokens.check_tokens(torch.tensor([[4, 7]]), chooser.tokens.action_start)
    with pytest.raises(ValueError, match="one token for each sequence"):
        state.append(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="there is no sequence 0 or 1 among 1"):
        state.select(torch.tensor([[0, 1]] * 3))


@both
def test_bins_of_other_data_are_refused(config, dataset):
    torch.manual_seed(0)
    model = config.build(dataset.spaces).eval()
    history, observation, _ = situation(config, dataset)
    with pytest.raises(ValueError, match="has not been fitted"):
        model.begin(history, observation)
    model.fit_statistics(dataset)
    other, _ = dataset.split(0.5, 0)
    model.fit_statistics(other)  # not trained yet: no harm
    model.after_step()
    model.fit_statistics(other)
    with pytest.raises(ValueError, match="fitted on other data than the model was trained on"):
        model.fit_statistics(dataset)
    model.begin(history, observation)
    donor = config.build(dataset.spaces)
    donor.fit_statistics(dataset)
    model.tokens.load_state_dict(donor.tokens.state_dict())
    with pytest.raises(ValueError, match="fitted on other data than its weights"):
        model.begin(history, observation)


@both
def test_discrete_and_continuous_actions_are_not_mixed(config, dataset):
    data = discrete_data()
    with pytest.raises(ValueError, match="continuous actions, but .* built for 4 discrete"):
        config.build(data.spaces).fit_statistics(dataset)
    with pytest.raises(ValueError, match="4 discrete actions, but .* built for continuous"):
        config.build(dataset.spaces).fit_statistics(data)
    model = built(config, data)
    batch = config.view(data)[np.arange(4)]
    wrong = Trajectory(
        observations=batch.observations[:, :2],
        actions=batch.actions[:, :2] + 0.5,
        times=batch.times[:2],
    )
    with pytest.raises(ValueError, match="4 discrete actions, indices 0 to 3; got values from"):
        model.begin(wrong, batch.observations[:, 2])
    with pytest.raises(ValueError, match="4 discrete actions need as many tokens"):
        replace(config, n_bins=3).build(data.spaces)


@both
def test_numbers_that_are_none_are_refused_unless_they_can_be_hidden(config, dataset):
    model = built(config, dataset)
    history, observation, _ = situation(config, dataset)
    unknown, endless = observation.clone(), observation.clone()
    unknown[1, 0], endless[1, 0] = torch.nan, torch.inf
    for wrong in (unknown, endless):
        with pytest.raises(ValueError, match="the observation has values that are not finite"):
            model.begin(history, wrong)
    lost = replace(history, actions=history.actions * torch.nan)
    with pytest.raises(ValueError, match="the history's actions has values that are not finite"):
        model.begin(lost, observation)
    batch = config.view(dataset)[np.arange(2)]
    with pytest.raises(ValueError, match="the batch has values that are not finite"):
        model.loss(replace(batch, observations=batch.observations * torch.nan))
    hiding = built(replace(config, hidden_share=0.5), dataset)
    assert bool(hiding.begin(history, unknown).next_logits().isfinite().all())
    with pytest.raises(ValueError, match="not finite"):
        hiding.begin(history, endless)


@both
def test_batches_of_other_sizes_are_refused(config, dataset):
    model = built(config, dataset)
    history, observation, _ = situation(config, dataset)
    with pytest.raises(ValueError, match=r"observations are \(batch, 3\); got shape \(3,\)"):
        model.begin(None, observation[0])
    with pytest.raises(ValueError, match="2 observations, but a history of 3 environments"):
        model.begin(history, observation[:2])
    wide = replace(history, observations=torch.zeros(3, 2, 4))
    with pytest.raises(ValueError, match="observations are 4 wide; this model was built for 3"):
        model.begin(wide, observation)
    rows = np.zeros((6, 4), dtype=np.float32)
    other = EpisodeDataset.from_episodes([Episode(rows, rows[1:, :2], rows[1:, 0])])
    with pytest.raises(ValueError, match="observation_dim 4, but this model was built for 3"):
        config.build(dataset.spaces).fit_statistics(other)


@both
def test_a_model_in_training_mode_does_not_predict_with_dropout(config, dataset):
    model = built(replace(config, dropout=0.1), dataset)
    history, observation, _ = situation(config, dataset)
    model.begin(history, observation)
    with pytest.raises(ValueError, match="in training mode.*model.eval"):
        model.train().begin(history, observation)


def test_settings_that_make_no_sense_are_refused(dataset):
    for wrong, message in (
        ({"band": -1}, "must not be negative"),
        ({"action_weight": -5.0}, "must not be negative"),
        ({"band": 2}, "positions rotary"),
        ({"band": 2, "positions": "rotary", "goal": "final"}, "fall out of the band"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(FLAT, **wrong)
    with pytest.raises(ValueError, match=r"map_places \(0, 9\): observations have dimensions 0"):
        replace(CASES["factored-places"], map_places=(0, 9)).build(dataset.spaces)


@both
def test_goals_are_given_where_they_are_wanted_only(config, dataset):
    model = built(config, dataset)
    _, observation, _ = situation(config, dataset, 0)
    with pytest.raises(ValueError, match="wants no goal"):
        model.begin(None, observation, observation)
    model = built(replace(config, goal="final"), dataset)
    with pytest.raises(ValueError, match="needs a goal"):
        model.begin(None, observation)
    with pytest.raises(ValueError, match="observations are 2 wide; .* built for 3"):
        model.begin(None, observation[:, :2], observation)
