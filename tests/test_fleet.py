"""What one process orders, the others hear: on memcached, on several, and on a cache without CAS.

Each ``Process`` is one of a site: a hot tier of its own on the cache that they share.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import free_port

from django_dynamo_failover import fleet
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.exceptions import HotUnavailable

from .fleets import ISSUE, KNOWN, Process, each_order
from .sites import NOW, threads_in_a_hurry

# --- Orders -----------------------------------------------------------------------------------


@each_order
def test_what_one_process_orders_the_others_know_when_they_look(join, order):
    one, other, later = join(), join(), join()
    other.look()
    version = ISSUE[order](one)
    assert other.known == (False, 0, [])
    for process in (other, later):
        process.look()
        assert process.known == one.known == KNOWN[order]
        assert process.orders.version == version


def test_nothing_is_written_while_nothing_is_ordered(memcached, open_memcached):
    Process(open_memcached()).look()
    assert memcached.keys() == []


def test_a_look_costs_one_round_trip(memcached, open_memcached):
    process = Process(open_memcached())
    process.drain(True)
    process.look()
    before = memcached.commands()
    process.look()
    assert memcached.commands() - before == {"get": 1}


def test_orders_add_up(join):
    one, other = join(), join()
    one.drain(True)
    other.revalidate()  # without a look before
    one.revoke({"ann": NOW})
    other.look()
    assert other.known == one.known == (True, NOW, ["ann"])


def test_draining_ends_for_all(join):
    one, other = join(), join()
    one.drain(True)
    other.look()
    assert other.draining
    other.drain(False)
    one.look()
    assert not one.draining


@each_order
def test_orders_outlive_the_contents_of_the_cache(join, order):
    """Whoever knows them puts them back, also when the one who gave them is gone."""
    one, other = join(), join()
    version = ISSUE[order](one)
    other.look()
    one.cache.clear()
    other.look()
    later = join()
    later.look()
    assert later.known == KNOWN[order]
    assert later.orders.version == version


def test_orders_that_were_given_on_both_sides_of_a_loss_both_stand(join):
    one, other = join(), join()
    one.revoke({"ann": NOW})
    one.cache.clear()
    other.revoke({"ben": NOW})
    assert other.known == (False, 0, ["ben"])
    one.look()
    other.look()
    assert one.known == other.known == (False, 0, ["ann", "ben"])


def test_an_order_to_end_draining_is_not_undone_by_who_was_away(join):
    one, away = join(), join()
    one.drain(True)
    away.look()
    one.drain(False)
    one.cache.clear()
    away.look()  # and puts back that it drains
    assert away.draining
    one.look()
    away.look()
    assert (one.draining, away.draining) == (False, False)


@each_order
@pytest.mark.parametrize("dead", range(3))
def test_orders_outlive_each_server_of_several(three, order, dead):
    one, other = three.join(), three.join()
    ISSUE[order](one)
    three.servers[dead].kill()
    other.look()
    assert other.known == KNOWN[order]


@each_order
@pytest.mark.parametrize("alive", range(3))
def test_orders_can_be_given_while_one_server_is_left(three, order, alive):
    one, other = three.join(), three.join()
    for server in three.servers:
        if server is not three.servers[alive]:
            server.kill()
    ISSUE[order](one)
    other.look()
    assert other.known == KNOWN[order]


def test_a_server_that_comes_back_is_told_the_orders(three):
    one = three.join()
    three.servers[0].kill()
    one.drain(True)
    three.servers[0].start()
    one.clock.tick(2)
    one.look()
    for server in three.servers[1:]:
        server.kill()
    later = three.join()
    later.look()
    assert later.draining


@each_order
def test_orders_that_no_server_takes_are_not_given(order):
    process = Process(MemcachedCache(f"127.0.0.1:{free_port()}", {}))
    with pytest.raises(HotUnavailable):
        ISSUE[order](process)
    with pytest.raises(HotUnavailable):
        process.look()


def test_what_could_not_be_told_is_told_when_the_cache_is_back(memcached, open_memcached):
    one, other = Process(open_memcached()), Process(open_memcached())
    memcached.freeze()
    with pytest.raises(HotUnavailable):
        one.drain(True)
    memcached.thaw()
    one.clock.tick(2)
    one.look()
    other.look()
    assert other.draining


# --- Races ------------------------------------------------------------------------------------


class Interrupted(MemcachedCache):
    """A cache where something happens between a look and the write that follows."""

    interruption = None

    def _interrupt(self):
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            interruption()

    def add(self, *args, **kwargs):
        self._interrupt()
        return super().add(*args, **kwargs)

    def cas(self, *args, **kwargs):
        self._interrupt()
        return super().cas(*args, **kwargs)


@pytest.mark.parametrize("known", [False, True], ids=["first orders", "later orders"])
def test_of_two_orders_at_once_none_is_lost(memcached, open_memcached, known):
    cache = Interrupted(memcached.address, {})
    one, other, later = Process(cache), Process(open_memcached()), Process(open_memcached())
    if known:
        other.revoke({"eve": NOW})
    cache.interruption = lambda: other.revoke({"ben": NOW})
    version = one.revoke({"ann": NOW})
    assert version > other.orders.version
    later.look()
    assert later.known == one.known == (False, 0, ["ann", "ben", *(["eve"] if known else [])])
    assert later.orders.version == version
    cache.disconnect()


def test_many_orders_of_many_processes_at_once_are_all_kept(join, monkeypatch):
    monkeypatch.setattr(fleet, "_ATTEMPTS", 100)
    processes = [join() for _ in range(4)]
    begin = threading.Barrier(4)

    def issue(number):
        begin.wait(5)
        for other in range(20):
            processes[number].revoke({f"{number} {other}": NOW})

    with threads_in_a_hurry(), ThreadPoolExecutor(4) as pool:
        list(pool.map(issue, range(4)))
    for process in processes * 2:  # a cache without compare-and-swap may have lost some
        process.look()
    assert {len(process.orders.users) for process in processes} == {80}
    assert len({process.orders.version for process in processes}) == 1


def test_who_loses_every_race_says_so(memcached, open_memcached):
    class Losing(MemcachedCache):
        def add(self, *args, **kwargs):
            return False

    cache = Losing(memcached.address, {})
    with pytest.raises(HotUnavailable):
        Process(cache).drain(True)
    cache.disconnect()
