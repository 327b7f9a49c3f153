"""Sticks of planar bodies: rigid, where the model file puts them, as fast as observed."""

import numpy as np
import pytest

from forethought.envs.skeleton import Skeleton


@pytest.fixture(scope="module")
def hopper() -> Skeleton:
    return Skeleton("forethought/hopper-v0")


def test_sticks_of_an_upright_hopper_stand_where_its_model_file_puts_them(hopper: Skeleton):
    body = hopper.sticks(np.array([[0.0, 1.25, 0, 0, 0, 0]]))[0]
    assert hopper.names == ("torso_geom", "thigh_geom", "leg_geom", "foot_geom")
    np.testing.assert_allclose(sorted(body[0, :, 1]), [1.05, 1.45], atol=1e-9)
    np.testing.assert_allclose(sorted(body[3, :, 0]), [-0.13, 0.26], atol=1e-9)


def test_sticks_keep_their_lengths_and_move_with_the_body(hopper: Skeleton):
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(5, 6))
    bodies = hopper.sticks(positions)
    lengths = np.linalg.norm(bodies[:, :, 1] - bodies[:, :, 0], axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape))
    moved = hopper.sticks(positions + np.array([2.0, 0.5, 0, 0, 0, 0]))
    np.testing.assert_allclose(moved, bodies + np.array([2.0, 0.5]), atol=1e-9)


def test_the_way_is_the_integral_of_the_observed_speed(hopper: Skeleton):
    seen = np.zeros((4, 11))
    seen[:, 0], seen[:, 5] = 1.25, [1.0, 3.0, 3.0, 1.0]
    found = hopper.positions(seen)
    np.testing.assert_allclose(found[:, 0], hopper.step_seconds * np.array([0, 2, 5, 7]))
    np.testing.assert_allclose(found[:, 1], 1.25)


def test_bodies_and_observations_that_do_not_fit_are_refused(hopper: Skeleton):
    with pytest.raises(ValueError, match=r"\(T, 11\)"):
        hopper.positions(np.zeros((4, 17)))
    with pytest.raises(ValueError, match="no planar body"):
        Skeleton("forethought/pendulum-v0")
