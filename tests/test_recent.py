"""A short memory."""

from django_dynamo_failover.recent import Recent

from .sites import Clock


def test_an_id_is_remembered_for_a_while():
    clock = Clock()
    recent = Recent(2, 10, clock=clock)
    recent.add("a")
    assert "a" in recent
    assert "b" not in recent
    clock.tick(2)
    assert "a" not in recent


def test_it_does_not_grow():
    recent = Recent(60, 10)
    for number in range(1000):
        recent.add(f"{number}")
        assert f"{number}" in recent
        assert len(recent._until) <= 10
