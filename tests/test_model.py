"""The guarantees G1 to G6, whatever happens in whatever order.

``MODEL_EXAMPLES`` is how many games are played, by default 500, and 2,000 under tox. They are the
same each time, but with ``MODEL_RANDOM=1`` others each time.
"""

import os

import pytest

from .model.machine import Sites, play

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "500"))


def test_the_guarantees_hold():
    play(EXAMPLES, derandomize=os.environ.get("MODEL_RANDOM") != "1")


@pytest.fixture
def game():
    game = Sites()
    game.somebody_is_logged_in()
    yield game
    game.teardown()


class TestFound:
    """What it has found, step by step."""

    def test_a_pending_change_does_not_bring_back_what_was_ended(self, game):
        game.request(place=1, back=0, what="set")
        game.request(place=0, back=0, what="logout")
        game.dynamodb_cannot_be_reached(place=0, regions=[0, 1])
        game.time_passes(70.0)
        game.look(place=1, back=0)

    def test_a_region_that_was_not_told_does_not_bring_back_what_was_ended(self, game):
        game.a_region_is_lost(region=0)
        game.request(place=1, back=0, what="logout")
        game.time_passes(70.0)
        game.dynamodb_is_back()
        game.look(place=0, back=0)

    def test_two_sites_and_two_processes_of_one_of_them_keep_all_their_changes(self, game):
        game.request(place=0, back=0, what="set")
        game.fail_over()
        game.request(place=1, back=0, what="set")
        game.request(place=0, back=0, what="set")
        game.stop(place=2)
        game.time_passes(3.0)
        game.stop(place=0)  # it had loaded what its neighbour, place 1, had not written yet
        game.look(place=0, back=0)
        game.time_passes(1000.0)
        session = game.a_session(0)
        seen = game.load(game.process(0), session).store
        assert all(change.mark in seen for change in session.changes)

    def test_what_a_process_gave_back_to_memcached_is_not_written_apart(self, game):
        game.new_visitor(place=0)
        game.evict(place=0)
        game.request(place=0, back=0, what="pop")
        game.request(place=1, back=0, what="pop")
        game.work(place=0)
        game.stop(place=1)
        game.time_passes(70.0)
        game.look(place=0, back=0)
