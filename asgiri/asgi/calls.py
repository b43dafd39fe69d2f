"""The coroutines between a session and its application: ``receive``, ``send``, and the call of it all.

They are Python in every build, for applications and debuggers look at them: a coroutine that setup.py has compiled
shows no stack, nobody hears when it is never awaited, and it takes no less time. All that can be done without a wait is
the session's.
"""

from __future__ import annotations

import asyncio
from types import MethodType
from typing import TYPE_CHECKING

from asgiri.errors import ClientDisconnectedError
from asgiri.types import ASGIApp, Message, Scope

if TYPE_CHECKING:
    from asgiri.asgi.session import Session

# Turns of the loop that who waits in receive() has for the news of a disconnect, before a send tells them by failing. A
# framework that waits for the first of two tasks needs three to have the other one cancelled.
HEAD_START = 5


async def run(session: Session, app: ASGIApp, scope: Scope) -> None:
    """Call the application, and have the session answer for it when it fails. Raises only CancelledError."""
    try:
        await app(scope, MethodType(receive, session), MethodType(send, session))
    except asyncio.CancelledError as error:
        if being_cancelled():
            session.cancelled()
            raise
        session.ended(error)  # nobody cancelled us: the app awaited something that was
    except BaseException as error:
        session.ended(error)
    else:
        session.ended(None)


async def receive(session: Session) -> Message:
    """The next event for the application, as ``session.next_message`` says."""
    while (message := session.next_message()) is None:
        await session.news()
    return message


async def send(session: Session, message: Message) -> None:
    """Take one event of the application's, as ``session.take`` says.

    Where the peer has gone and somebody is in ``receive``, that one hears of it first: Django and Litestar end a
    request in order when they are told so, and leave it as it is when a send has failed before. Others have a turn in
    any case: an application may throw the error away, and send again.
    """
    try:
        waiting = session.take(message)
        if waiting is not None:
            await waiting
            session.check_connected()
    except ClientDisconnectedError:
        for _ in range(HEAD_START if session.has_listener else 1):
            await asyncio.sleep(0)
        raise


def being_cancelled() -> bool:
    """Whether somebody has cancelled the task that this runs in."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
