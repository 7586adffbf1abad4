"""Listening sockets that bide their time while there is no room for another connection."""

import contextlib
import errno
import socket
from typing import Any

import structlog
from tornado import netutil
from tornado.ioloop import IOLoop

log = structlog.get_logger(__name__)

FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
PAUSE = 0.5  # seconds


class PatientSocket(socket.socket):
    """Accepts nobody for a moment when no file descriptor is left; clients wait in the backlog.

    Tornado by itself would try again at once and for ever, with a traceback each time.
    """

    _is_full = False

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._pause(error)
            raise BlockingIOError from error
        if self._is_full:
            self._is_full = False
            log.info("listener.resumed")
        return accepted

    def _pause(self, error: OSError) -> None:
        if not self._is_full:
            self._is_full = True
            log.error("listener.paused", error=str(error))
        loop = IOLoop.current()
        loop.update_handler(self, 0)
        loop.call_later(PAUSE, self._listen_again, loop)

    def _listen_again(self, loop: IOLoop) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):  # closed meanwhile
            loop.update_handler(self, IOLoop.READ)


def bind_sockets(port: int, host: str) -> list[socket.socket]:
    """Listens on every address of the host."""
    return [PatientSocket(fileno=each.detach()) for each in netutil.bind_sockets(port, host)]
