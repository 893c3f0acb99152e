"""What each process tells of itself in its slot."""

import json
import os
import pickle
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import free_port

from django_dynamo_failover import fleet
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.exceptions import HotUnavailable
from django_dynamo_failover.keys import Keyring

from .fleets import Process
from .sites import KEYRING, NOW
from .web import until

PICKLE_FLAGS = 1


def ids(processes):
    return sorted(process.id for process in processes)


def heard_of(process):
    """The processes that one hears of."""
    return ids_of(process.members())


def ids_of(members):
    return sorted(member.id for member in members)


@pytest.fixture
def slots(monkeypatch):
    """``slots(number)``: let there be so few."""

    def slots(number):
        monkeypatch.setattr(fleet, "_SLOT_NAMES", fleet._SLOT_NAMES[:number])

    return slots


# --- Slots ------------------------------------------------------------------------------------


def test_each_process_tells_of_itself(join):
    one, other = join(site="east"), join(site="west")
    version = one.drain(True)
    one.tell(7, oldest=NOW, logouts=2)
    other.tell(0)
    members = {member.id: member for member in join().members()}
    assert members.keys() == {one.id, other.id}
    assert members[one.id] == fleet.Member(
        id=one.id,
        host=socket.gethostname(),
        pid=os.getpid(),
        site="east",
        pending=7,
        orders=version,
        drained=False,
        oldest=NOW,
        logouts=2,
    )
    assert (members[other.id].site, members[other.id].orders) == ("west", 0)


def test_what_is_told_last_counts(join):
    one = join()
    for pending in (3, 2, 1):
        one.tell(pending)
    assert [member.pending for member in join().members()] == [1]


def test_who_leaves_is_not_there_any_more(join):
    one, other = join(), join()
    one.leave()  # who has not told of itself has nothing to take back
    one.tell(0)
    other.tell(0)
    one.leave()
    assert heard_of(other) == ids([other])
    one.leave()
    one.tell(0)  # a poll that was under way
    assert heard_of(other) == ids([other])


def test_who_leaves_while_it_takes_a_slot_is_not_there_any_more(join):
    one, other = join(), join()
    take = one.hot.write_note

    def take_and_leave(*arguments):
        taken = take(*arguments)
        one.leave()
        return taken

    one.hot.write_note = take_and_leave
    one.tell(0)
    assert heard_of(other) == []


def test_who_leaves_while_it_still_tells_of_itself_has_left_all_the_same(join, monkeypatch):
    """The poll of the background thread finds the slot gone, and the hot tier down."""
    one, other = join(), join()
    one.tell(0)
    drop_note = one._hot.drop_note

    def drop_and_poll(name):
        drop_note(name)
        one._slot = None

    monkeypatch.setattr(one._hot, "drop_note", drop_and_poll)
    one.leave()
    assert heard_of(other) == []


def test_who_is_not_heard_of_any_more_is_not_there_any_more(join, soon_forgotten):
    """``kill -9`` gives no slot back."""
    one, other = join(), join()
    for process in (one, one, other):
        process.tell(0)
    slot = other._slot

    def is_forgotten():
        other.tell(0)
        return heard_of(other) == ids([other])

    until(is_forgotten, within=4)
    assert other._slot == slot


def test_a_slot_is_looked_for_once(memcached, open_memcached):
    """To tell again costs one look at the own slot and one write, whatever the others do."""
    process = Process(open_memcached())
    process.tell(0)
    before = memcached.commands()
    process.tell(0)
    assert memcached.commands() - before == {"get": 1, "set": 1, "cas": 1}


def test_a_slot_that_was_lost_is_taken_again(join):
    one, other = join(), join()
    one.tell(0)
    slot = one._slot
    one.cache.clear()
    assert heard_of(other) == []
    one.tell(0)
    assert heard_of(other) == ids([one])
    assert one._slot == slot


def test_a_slot_that_was_lost_and_taken_by_another_process_is_left_to_it(join):
    one, other = join(), join()
    one.tell(0)
    one.cache.clear()
    other._slot = one._slot
    other.tell(0)
    one.tell(0)
    other.tell(0)
    assert one._slot != other._slot
    assert heard_of(one) == ids([one, other])


def test_a_slot_that_is_taken_just_now_is_left_to_who_took_it(join, slots):
    slots(2)
    one, other = join(), join()
    one.tell(0)
    read_notes = other._hot.read_notes
    other._hot.read_notes = lambda names: {}  # it had looked before
    other.tell(0)
    other._hot.read_notes = read_notes
    assert heard_of(other) == ids([one, other])


def test_processes_that_start_at_once_are_all_heard_of(join, slots):
    slots(64)
    processes = [join() for _ in range(8)]
    begin = threading.Barrier(8)

    def tell(process):
        begin.wait(5)
        process.tell(0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tell, processes))
    assert heard_of(processes[0]) == ids(processes)


def test_of_more_processes_than_slots_some_are_not_heard_of(join, slots):
    slots(2)
    first, second, third = (join() for _ in range(3))
    for _ in range(2):
        for process in (first, second, third):
            process.tell(0)
    assert heard_of(third) == ids([first, second])
    first.leave()
    third.tell(0)
    assert heard_of(first) == ids([second, third])


def test_whose_slot_is_on_a_server_that_died_takes_another(three):
    one, other = three.join(), three.join()
    one.tell(0)
    three.server_of(one._slot).kill()
    assert heard_of(other) == []
    assert not other.sees_all
    with pytest.raises(HotUnavailable):
        one.tell(0)
    one.tell(0)
    assert heard_of(other) == ids([one])


def test_who_cannot_tell_says_so():
    process = Process(MemcachedCache(f"127.0.0.1:{free_port()}", {}))
    with pytest.raises(HotUnavailable):
        process.tell(0)
    assert process.members() == []
    assert not process.sees_all
    process.leave()


# --- What was not written by us ---------------------------------------------------------------

SLOT = "session-process:7"
NOTE = json.dumps(
    {"id": "eve", "host": "", "pid": 1, "site": "", "pending": 0, "orders": 2**63, "drained": True}
).encode()
FORGED = {
    "noise": b"noise",
    "nothing": b"",
    "another secret": Keyring(["other"]).sign_hot(SLOT, NOTE) + NOTE,
    "another slot": KEYRING.sign_hot("session-process:8", NOTE) + NOTE,
    "a pickle": pickle.dumps("harmless"),
    "noise with our signature": KEYRING.sign_hot(SLOT, b"noise") + b"noise",
    "a newer release's": KEYRING.sign_hot(SLOT, b"{}") + b"{}",
}


def test_what_an_earlier_release_does_not_tell_is_nothing():
    eve = fleet._decode_member(NOTE)
    assert (eve.id, eve.oldest, eve.logouts) == ("eve", 0, 0)


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("server", ["memcached", "three memcacheds"])
def test_a_planted_note_hides_nobody(request, name, server):
    if server == "memcached":
        at = request.getfixturevalue("memcached")
        open_cache = request.getfixturevalue("open_memcached")
    else:
        three = request.getfixturevalue("three")
        open_cache = three.open_cache
    processes = [Process(open_cache()) for _ in range(4)]
    if server != "memcached":
        at = three.server_of(SLOT)
    for number, process in enumerate(processes):
        process._slot = f"session-process:{number}"
        process.tell(0)
    at.set(f":1:{SLOT}", FORGED[name], flags=PICKLE_FLAGS if name == "a pickle" else 0)
    assert heard_of(processes[0]) == ids(processes)
    assert heard_of(processes[0]) == ids(processes)
    assert processes[0].sees_all


@pytest.mark.parametrize("name", FORGED)
def test_a_process_takes_its_slot_back(memcached, open_memcached, name):
    one, other = Process(open_memcached()), Process(open_memcached())
    one._slot = SLOT
    one.tell(0)
    memcached.set(f":1:{SLOT}", FORGED[name], flags=PICKLE_FLAGS if name == "a pickle" else 0)
    one.tell(0)
    assert heard_of(other) == ids([one])
    assert one._slot == SLOT


def test_what_a_newer_release_tells_besides_is_left_out(memcached, open_memcached):
    told = json.dumps({**json.loads(NOTE), "mood": "good"}).encode()
    memcached.set(f":1:{SLOT}", KEYRING.sign_hot(SLOT, told) + told)
    assert heard_of(Process(open_memcached())) == ["eve"]


# --- Drained ----------------------------------------------------------------------------------


def test_drained_is_who_had_nothing_pending_a_while_after_it_heard_of_it(join):
    """A save that had begun before is pending by then."""
    one, other = join(), join()
    other.poll()
    one.drain(True)

    def tells(pending):
        other.poll(pending)
        [member] = one.members()
        return member.drained

    assert [tells(pending) for pending in (0, 0, 1, 0)] == [False, True, False, True]
    one.drain(False)
    assert not tells(0)
    one.drain(True)
    assert [tells(pending) for pending in (0, 0)] == [False, True]


def test_who_has_not_heard_of_it_is_not_drained(join):
    one, other = join(), join()
    one.drain(True)
    for _ in range(3):
        other.tell(0)
    assert [member.drained for member in one.members()] == [False]
