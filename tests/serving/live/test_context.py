"""Resources of live exports: messages are not repeated, and failures end with a hint for a server."""

from __future__ import annotations

from tests.support.clock import FakeClock
from tests.support.live_exports import make_context
from tests.support.simulator import JobOutcome
from tilesync.errors import NoFreshLink, Transient, Unavailable
from tilesync.events import Notice, Retried, Warned
from tilesync.serving.live.context import MAX_REMEMBERED_MESSAGES, SAME_MESSAGE_S, Announcer


def test_same_message_is_said_once_in_a_while() -> None:
    """An equal message is passed on again only after SAME_MESSAGE_S; other events always are."""
    clock, outcome = FakeClock(), JobOutcome()
    announcer = Announcer(outcome, clock)
    for number in range(3):
        announcer(Notice("down"))
        announcer(Retried("the container", "503", 1.0))
        announcer.warn("e1: ", Unavailable("the service is down", hint="wait"))
        announcer.warn("", Unavailable(f"file {number} is refused", hint=""), topic="refused")
    messages = [Notice("down"), Warned("e1: the service is down (wait)"), Warned("file 0 is refused")]
    assert [event for event in outcome.events if not isinstance(event, Retried)] == messages
    assert len(outcome.events_of(Retried)) == 3
    clock.advance(SAME_MESSAGE_S)
    announcer(Notice("down"))
    assert len(outcome.events_of(Notice)) == 2


def test_only_so_many_messages_are_remembered() -> None:
    """Beyond the limit the oldest message is forgotten, so that different messages take bounded memory."""
    outcome = JobOutcome()
    announcer = Announcer(outcome, FakeClock())
    for number in range(MAX_REMEMBERED_MESSAGES + 1):
        announcer(Notice(f"file {number}"))
    announcer(Notice(f"file {MAX_REMEMBERED_MESSAGES}"))
    announcer(Notice("file 0"))
    assert len(outcome.events_of(Notice)) == MAX_REMEMBERED_MESSAGES + 2
    assert len(announcer._sent_at_s) == MAX_REMEMBERED_MESSAGES


def test_final_error_of_retries() -> None:
    """The hint is for a request to a server, not for a run."""
    error = make_context().new_policy().final_error(Transient("it answered 503"))
    assert (str(error), error.hint) == (
        "the container kept failing: it answered 503",
        "the server goes on: try again in a moment",
    )


def test_a_dead_link_has_a_hint_for_servers() -> None:
    """The hint for a dead link is one for a server, not the one of a run."""
    outcome = JobOutcome()
    Announcer(outcome, FakeClock()).warn("", NoFreshLink("the link has expired"))
    assert outcome.events == [
        Warned("the link has expired (start the server again with a fresh link, or with --link-command)")
    ]
