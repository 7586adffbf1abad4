"""The service as a user starts it: a process of its own, on a free port, with a folder of its own.

It can be stopped, killed and started again at the same address with the same data.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from tests.support.redis_server import free_port

PROJECT = Path(__file__).parents[2]
READY_WITHIN = 30.0  # seconds
GONE_WITHIN = 30.0  # seconds, the drain included


class Service:
    """`python run.py --config config/dev.yaml`, its embedded Redis and demo agents included."""

    def __init__(self, folder: Path, **environ: str) -> None:
        """`environ` are further `ORCHESTRATOR_` variables."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._folder = folder
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it is ready."""
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "run.py", "--config", "config/dev.yaml"],
                cwd=PROJECT,
                env={
                    **os.environ,
                    "ORCHESTRATOR_PORT": str(self.port),
                    "EMBEDDED_REDIS_FOLDER": str(self._folder),
                    **self._environ,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """SIGTERM: it drains. Nothing happens if it is down already."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what a crash is. Nothing happens if it is down already."""
        self._end(signal.SIGKILL)

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    @property
    def _log_file(self) -> Path:
        return self._folder / "service.log"

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        try:
            process.wait(GONE_WITHIN)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise AssertionError(f"the service did not end:\n{self.log}") from error

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + READY_WITHIN
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the service did not start:\n{self.log}")
            time.sleep(0.05)  # another process gets ready: there is no event to wait for

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}health/ready", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()  # 503: it is starting
            return False
        except OSError:
            return False
