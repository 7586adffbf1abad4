"""The program: its settings, its signals, its exit status."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import __version__
from run import main
from tests.support.processes import PROJECT
from tests.support.redis_server import RedisServer
from tests.support.service import process_service


def test_it_says_its_version_and_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    for word, expected in (("--version", __version__), ("--help", "--check-config")):
        with pytest.raises(SystemExit) as caught:
            main([word])
        assert caught.value.code == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize("name", ["dev", "prod", "reference"])
def test_the_shipped_files_are_right(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = PROJECT / "config" / f"{name}.yaml"
    assert main(["--config", str(file), "--check-config"]) == 0
    assert "all settings are right" in capsys.readouterr().out


def test_each_mistake_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("server: {port: x}\nunknown: 1\n")
    for arguments in (["--config", str(file)], ["--config", str(file), "--check-config"]):
        assert main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert any("server.port" in line for line in lines)
        assert any("unknown" in line for line in lines)


def test_a_supervision_file_that_cannot_be_written_is_a_mistake_too(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"logging: {{supervision_file: {tmp_path}/nothing/here.log}}\n")
    done = subprocess.run(  # a process, as logs are global
        (sys.executable, "run.py", "--config", file),
        cwd=PROJECT,
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("logging.supervision_file: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_with_status_0_and_a_second_one_changes_nothing(
    redis_server: RedisServer, prefix: str, number: signal.Signals
) -> None:
    async with process_service(redis_server.url, prefix) as service:
        service.send_signal(number)
        service.send_signal(number)
        assert await service.exited(within=10) == 0
        assert "Traceback" not in service.log
        assert '"level":"warning"' not in service.log
        assert '"level":"error"' not in service.log


async def test_a_signal_while_redis_is_away_stops_it_as_well(prefix: str) -> None:
    with RedisServer() as server:
        async with process_service(server.url, prefix) as service:
            server.kill()
            service.send_signal(signal.SIGTERM)
            assert await service.exited(within=10) == 0
            assert "Traceback" not in service.log


async def test_an_address_in_use_is_one_line_and_status_1(
    redis_server: RedisServer, prefix: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with process_service(
            redis_server.url, prefix, is_ready=False, server={"port": taken.getsockname()[1]}
        ) as service:
            assert await service.exited() == 1
            assert "Traceback" not in service.log
            assert service.log.count("service.not_started") == 1


async def test_the_plain_way_starts_everything_and_leaves_no_process(tmp_path: Path) -> None:
    """`python run.py`: the embedded Redis, the worker, one line with the address."""
    environ = {**os.environ, "EMBEDDED_REDIS_FOLDER": str(tmp_path), "ORCHESTRATOR_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "run.py"), cwd=PROJECT, env=environ, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        said = b""
        async with asyncio.timeout(20):
            while b"service.ready" not in said:
                line = await process.stderr.readline()
                assert line, said
                said += line
        assert b"http://127.0.0.1:" in said
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            said += await process.stderr.read()  # ends once no child holds it any more
            assert await process.wait() == 0
        assert b"Traceback" not in said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
