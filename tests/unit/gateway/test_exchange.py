"""The state machine of one request and its answer: every legal path, and every step that a state does not allow."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import gateway
from gateway.access.quota import UNLIMITED, Admission
from gateway.catalog import Target
from gateway.record.recorder import Reservation
from gateway.relay.exchange import Exchange, IllegalTransition, State
from ratchet.clock import monotonic
from tests.support.exchanges import CAPTURED, begun_answer, exchange_reading, inference_request, new_exchange

STEPS: dict[str, Callable[[Exchange], None]] = {
    "watch_client": lambda it: it.watch_client(),
    "admitted": lambda it: it.admitted(UNLIMITED),
    "begin_dispatching": lambda it: it.begin_dispatching(it.ask),
    "redirect": lambda it: it.redirect(Target("small")),
    "dispatched": lambda it: it.dispatched(),
    "begin_reading": lambda it: it.begin_reading(begun_answer()),
    "received": lambda it: it.received(visible=True),
    "kept_alive": lambda it: it.kept_alive(),
    "begin_sending": lambda it: it.begin_sending(),
    "resume_reading": lambda it: it.resume_reading(),
    "capture": lambda it: it.capture(CAPTURED),
    "begin_recording": lambda it: it.begin_recording(),
    "begin_settling": lambda it: it.begin_settling(),
    "begin_finishing": lambda it: it.begin_finishing(),
    "end": lambda it: it.end(),
}
PATHS: dict[State, Sequence[str]] = {
    State.RECEIVED: (),
    State.DISPATCHING: ("watch_client", "admitted", "begin_dispatching"),
    State.READING: ("begin_dispatching", "dispatched", "begin_reading"),
    State.SENDING: ("begin_dispatching", "begin_reading", "begin_sending"),
    State.RECORDING: ("begin_dispatching", "begin_reading", "begin_recording"),
    State.SETTLING: ("begin_dispatching", "begin_reading", "begin_recording", "begin_settling"),
    State.FINISHING: ("begin_dispatching", "begin_reading", "begin_settling", "begin_finishing"),
    State.ENDED: ("end",),
}
"""A way to each state."""
R, D, E, S, C, T, F, X = State
LEGAL: dict[str, dict[State, State]] = {
    "watch_client": {R: R},
    "admitted": {R: R},
    "begin_dispatching": {R: D},
    "redirect": {D: D},
    "dispatched": {D: D},
    "begin_reading": {D: E},
    "received": {E: E},
    "kept_alive": {E: E},
    "begin_sending": {E: S},
    "resume_reading": {S: E},
    "capture": {E: E, S: S},
    "begin_recording": {E: C, S: C},
    "begin_settling": {E: T, C: T},
    "begin_finishing": {T: F},
    "end": dict.fromkeys(State, X),
}
"""Where each step leads, from each state that allows it."""


def walk(state: State, exchange: Exchange | None = None) -> Exchange:
    """An exchange in `state`."""
    exchange = exchange or new_exchange()
    for step in PATHS[state]:
        STEPS[step](exchange)
    assert exchange.state is state
    return exchange


class Interrupted:
    """A task that only counts how often it was cancelled."""

    cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_leads_where_the_table_says_and_is_refused_everywhere_else(step: str, state: State) -> None:
    exchange = walk(state)
    if (then := LEGAL[step].get(state)) is not None:
        STEPS[step](exchange)
        assert exchange.state is then
    else:
        with pytest.raises(IllegalTransition, match=state.name):
            STEPS[step](exchange)
        assert exchange.state is state


def test_every_method_that_changes_an_exchange_is_in_the_table() -> None:
    public = {name for name, value in vars(Exchange).items() if not name.startswith("_") and callable(value)}
    assert public - {"interrupt", "disconnected", "interaction"} == STEPS.keys() == LEGAL.keys()


START, ENDING = "begin_dispatching dispatched begin_reading ", "begin_settling begin_finishing end"
WAYS = {
    "whole": START + "capture begin_recording " + ENDING,
    "not recorded": START + "capture " + ENDING,
    "stream to a slow client": START + 2 * "begin_sending resume_reading received " + "capture begin_recording " + ENDING,
    "fallback": "begin_dispatching dispatched redirect dispatched begin_reading capture begin_recording " + ENDING,
    "nobody answers": "begin_dispatching end",
    "broken off": START + "capture begin_recording end",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_the_ways_that_requests_take_are_open(way: str) -> None:
    exchange = new_exchange()
    for step in way.split():
        STEPS[step](exchange)
    assert exchange.state is State.ENDED


@pytest.mark.parametrize("state", State)
def test_an_exchange_is_interrupted_once_unless_it_needs_but_a_moment(state: State) -> None:
    task: Any = Interrupted()
    exchange = walk(state, new_exchange(task=task))
    exchange.interrupt("truncated")
    exchange.disconnected()
    taken = state not in (State.SETTLING, State.ENDED)
    assert (exchange.interrupted, task.cancelled) == (("truncated", 1) if taken else (None, 0))
    assert exchange.state is state


@pytest.mark.parametrize("state", [state for state in State if state not in (State.SETTLING, State.ENDED)])
def test_an_interrupted_exchange_may_still_send_its_last_bytes(state: State) -> None:
    task: Any = Interrupted()
    exchange = walk(state, new_exchange(task=task))
    exchange.interrupt("truncated")
    exchange.begin_finishing()
    assert exchange.state is State.FINISHING
    exchange.end()
    with pytest.raises(IllegalTransition):
        exchange.begin_finishing()


async def test_a_client_that_disconnects_cancels_the_task_and_after_the_end_nothing() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    exchange = exchange_reading(task=task)
    client = exchange.request.client
    client.connection_lost()
    assert exchange.interrupted == "cancelled"
    assert task.cancelling() == 1
    exchange.end()
    client.connection_lost()
    assert task.cancelling() == 1
    await asyncio.wait({task})


def test_an_answer_says_who_gave_it_and_only_the_first_dispatch_counts() -> None:
    exchange = new_exchange()
    exchange.begin_dispatching(exchange.ask)
    exchange.dispatched()
    first = exchange.dispatched_at
    exchange.dispatched()
    assert exchange.dispatched_at is first
    exchange.begin_reading(begun_answer())
    assert exchange.engine == "a"
    assert exchange.first_byte_at == exchange.progress_at


def test_the_quotas_headers_are_put_on_the_answer() -> None:
    admission = Admission()
    admission.headers = [(b"x-ratelimit-limit-requests", b"3")]
    exchange = new_exchange()
    exchange.admitted(admission)
    assert exchange.request.response_headers == admission.headers


def test_tokens_are_those_the_engine_counted_or_those_captured_or_none() -> None:
    exchange = new_exchange()
    assert exchange.used_tokens == 0
    exchange = exchange_reading()
    assert exchange.used_tokens is None
    exchange.capture(CAPTURED)
    assert exchange.used_tokens == 3


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("promised", [True, False])
def test_an_answer_is_recorded_if_that_is_wanted_and_promised(store: bool, promised: bool) -> None:
    request = inference_request()
    request.ask.store = store
    exchange = Exchange(request, request.ask, request.target, Reservation(promised, 0), new_exchange().task)
    assert exchange.to_record is (store and promised)


def test_the_record_names_the_fallback_that_answered_and_times_since_the_start() -> None:
    exchange = new_exchange(inference_request(started=monotonic() - 5))
    exchange.begin_dispatching(exchange.ask)
    exchange.redirect(Target("small", "support", 7))
    exchange.begin_reading(begun_answer())
    exchange.capture(CAPTURED)
    item = exchange.interaction("complete", "reward")
    assert (item.policy, item.version, item.model, item.engine, item.tenant) == ("support", 7, "support@7", "a", "acme")
    assert item.untrainable == ""
    assert item.timings.first_token is not None
    assert 5 <= item.timings.first_token <= item.timings.total
    assert exchange.interaction("truncated", "reward").untrainable == "truncated"


def test_nobody_else_writes_an_exchanges_fields() -> None:
    assert not [place for path in Path(gateway.__file__).parent.rglob("*.py") for place in _writes(path, "exchange")]


def _writes(path: Path, name: str) -> list[str]:
    """Where a file assigns to an attribute of something called `name`."""
    stored = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    return [f"{path}:{node.lineno}" for node in stored if ast.unparse(node.value).rpartition(".")[2] == name]
