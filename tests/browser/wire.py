"""A way to the service that can be cut: a TCP relay on a port of its own."""

import contextlib
import socket
import struct
import threading
from typing import Self

NO_FAREWELL = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset, as a broken line would


class Wire:
    """Relays `url` to `port` of loopback, until it is cut; may be mended afterwards."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._broken = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in `accept`
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Resets every connection there is; new ones are welcome."""
        with self._lock:
            for end in self._open:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_FAREWELL)
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)  # wakes the thread in `recv`

    def break_off(self) -> None:
        """Cuts, and resets what comes, until it is mended."""
        self._broken = True
        self.cut()

    def mend(self) -> None:
        self._broken = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed: the test is over
            if self._broken:
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._join(near, far)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        with self._lock:
            self._open |= {near, far}
        threads = [
            threading.Thread(target=self._pump, args=ends, daemon=True)
            for ends in ((near, far), (far, near))
        ]
        for thread in threads:
            thread.start()
        threading.Thread(target=self._close, args=(threads, near, far), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _close(self, threads: list[threading.Thread], *ends: socket.socket) -> None:
        """Closes only when no thread uses the sockets: their numbers are soon given to others."""
        for thread in threads:
            thread.join()
        with self._lock:
            self._open -= set(ends)
        for end in ends:
            end.close()
