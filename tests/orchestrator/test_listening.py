"""No file descriptor left is a pause, not a storm of tracebacks."""

import asyncio
import errno
import os
import resource

import pytest
from tornado.ioloop import IOLoop
from tornado.netutil import add_accept_handler

from orchestrator.listening import PatientSocket, bind_sockets


async def test_without_a_file_descriptor_it_waits_and_then_takes_who_has_waited() -> None:
    (listener,) = bind_sockets(0, "127.0.0.1")
    taken: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    port = listener.getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    remove = add_accept_handler(listener, lambda connection, _: taken.set_result(connection))
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(BlockingIOError) as raised:
            listener.accept()
        assert isinstance(raised.value.__cause__, OSError)
        assert raised.value.__cause__.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    async with asyncio.timeout(10):
        connection = await taken
    remove()
    for each in (connection, writer, listener):
        each.close()  # type: ignore[attr-defined]


async def test_it_may_be_closed_while_it_waits() -> None:
    (listener,) = bind_sockets(0, "127.0.0.1")
    assert isinstance(listener, PatientSocket)
    add_accept_handler(listener, lambda *_: None)()
    listener.close()
    listener._listen_again(IOLoop.current())


async def test_any_other_error_is_raised_as_it_is() -> None:
    with PatientSocket() as deaf, pytest.raises(OSError, match="Invalid argument"):
        deaf.accept()
