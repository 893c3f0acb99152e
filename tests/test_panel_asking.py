"""Questions: asked at most so often, by one thread at a time, answered within a deadline."""

import threading
import time

import pytest

from django_dynamo_failover.panel.asking import Question

from .sites import Clock
from .web import until


class Answers:
    """What is asked: counts how often, and answers when it is let."""

    def __init__(self):
        self.asked = 0
        self.let = threading.Event()
        self.let.set()
        self.error = None

    def __call__(self):
        self.asked += 1
        number = self.asked
        assert self.let.wait(10)
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
def answers():
    made = Answers()
    yield made
    made.let.set()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def question(answers, clock):
    return Question("this", answers, fresh=5, kept=20, clock=clock)


def ask(question, clock, patience=10):
    question.begin()
    return question.answer(clock() + patience)


def test_an_answer_is_good_for_a_while(question, answers, clock):
    assert ask(question, clock) == 1
    clock.tick(4.9)
    assert ask(question, clock) == 1
    clock.tick(0.2)
    assert ask(question, clock) == 2


def test_many_viewers_ask_once(question, answers, clock):
    answers.let.clear()
    for _ in range(5):
        question.begin()
    answers.let.set()
    assert [question.answer(clock() + 10) for _ in range(5)] == [1] * 5
    assert answers.asked == 1


def test_nobody_waits_for_longer_than_he_has_time(answers):
    question = Question("this", answers, fresh=5, kept=20)
    answers.let.clear()
    question.begin()
    began = time.monotonic()
    assert question.answer(began + 0.05) is None
    assert time.monotonic() - began < 1


def test_the_last_answer_is_shown_for_a_while_when_the_next_is_late(question, answers, clock):
    assert ask(question, clock) == 1
    answers.let.clear()
    clock.tick(6)
    assert ask(question, clock, patience=0) == 1
    clock.tick(13)
    assert ask(question, clock, patience=0) == 1
    clock.tick(2)  # it has been kept for 20 seconds
    assert ask(question, clock, patience=0) is None
    assert answers.asked == 2
    answers.let.set()
    until(lambda: question.answer(0) == 2)


def test_who_asks_never_piles_up_threads(question, answers, clock):
    answers.let.clear()
    before = threading.active_count()
    for _ in range(20):
        ask(question, clock, patience=0)
        clock.tick(100)
    assert threading.active_count() == before + 1


def test_an_error_is_no_answer_and_is_logged(question, answers, clock, caplog):
    answers.error = OSError("hunter2")
    assert ask(question, clock) is None
    assert "The panel could not ask: this (OSError)" in caplog.text
    assert "hunter2" not in caplog.text
    answers.error = None
    clock.tick(6)
    assert ask(question, clock) == 2


def test_a_machine_without_a_thread_to_ask_in_is_asked_again(question, answers, clock, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", no_thread)
        assert ask(question, clock, patience=0) is None
    assert ask(question, clock) == 1
