"""How long one process waits until the others have heard of an order."""

import threading
from concurrent.futures import ThreadPoolExecutor


def test_nobody_is_waited_for_where_nobody_is(join):
    one = join()
    assert one.wait(one.drain(True), 0)


def test_who_waits_does_not_wait_for_itself(join):
    one = join()
    one.tell(0)
    assert one.wait(one.drain(True), 0)
    assert [member.orders for member in one.members()] == [0]


def test_one_waits_until_all_others_have_told_that_they_know(join):
    one, *others = (join() for _ in range(3))
    for other in others:
        other.poll()
    version = one.revalidate()
    assert not one.wait(version, 0)
    others[0].poll()
    others[1].look()  # which knows, but has not said so
    assert not one.wait(version, 0)
    others[1].tell(0)
    assert one.wait(version, 0)


def test_who_knows_more_will_do(join):
    one, other = join(), join()
    version = one.revalidate()
    other.drain(True)
    other.tell(0)
    assert one.wait(version, 0)


def test_waiting_ends_when_the_last_one_has_heard(join):
    one, other = join(), join()
    other.poll()
    version = one.drain(True)
    waiting = threading.Event()
    members = one.members

    def members_and_note():
        found = members()
        waiting.set()
        return found

    one.members = members_and_note
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(one.wait, version, 10)
        assert waiting.wait(5)
        assert not waited.done()
        other.poll()
        assert waited.result(5)


def test_who_has_died_is_waited_for_until_its_slot_is_over(join, soon_forgotten):
    one, other = join(), join()
    other.poll()
    assert one.wait(one.drain(True), 4)


def test_while_a_server_does_not_answer_it_is_not_known_who_is_there(three):
    one, other = three.join(), three.join()
    other.poll()
    version = one.drain(True)
    other.poll()
    assert one.wait(version, 0)
    next(s for s in three.servers if s is not three.server_of(other._slot)).kill()
    assert not one.wait(version, 0.2)


def test_orders_that_are_lost_while_one_waits_are_given_again(join):
    """Nobody but who waits had heard of them."""
    one, other = join(), join()
    other.poll()
    version = one.drain(True)
    one.cache.clear()
    other.poll()
    assert not other.draining
    assert not one.wait(version, 0)
    other.poll()
    assert other.draining
    assert one.wait(version, 0)
