"""The program: its settings, its signals, its exit status."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

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
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("logging.supervision_file: ")


def run(*arguments: str, said: str = "", **environ: str) -> "subprocess.CompletedProcess[str]":
    """`python run.py …`, to its end."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ORCHESTRATOR_")}
    return subprocess.run(
        (sys.executable, "run.py", *arguments),
        cwd=PROJECT,
        env={**inherited, **environ},
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def jwt_settings(folder: Path, **jwt: Any) -> str:
    """The path of a configuration file that asks for tokens."""
    file = folder / "auth.yaml"
    file.write_text(yaml.safe_dump({"auth": {"mode": "jwt", "jwt": jwt}}))
    return str(file)


async def test_a_token_that_it_prints_is_one_that_it_takes(
    redis_server: RedisServer, prefix: str, tmp_path: Path
) -> None:
    jwt = {"algorithms": ["HS256"], "key": "9b1c4d7e0f2a58636b7d8c9a0e1f2b3c", "audience": "us"}
    file = jwt_settings(tmp_path, **jwt)
    for arguments in (
        ("token", "--config", file, "--tenant", "acme"),
        ("--config", file, "token", "--tenant", "acme", "--user", "u", "--expires-in", "600"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        (token,) = done.stdout.splitlines()
    auth = {"mode": "jwt", "jwt": jwt}
    async with process_service(redis_server.url, prefix, auth=auth) as service:
        path = "/api/sessions/acme/s-1/events"
        assert (await service.get(path)).status == 401
        assert (await service.get(path, Authorization=f"Bearer {token}")).status == 200
        assert (await service.get("/actors", Authorization=f"Bearer {token}")).status == 403
        assert token not in service.log


def test_a_token_that_cannot_be_signed_is_one_line_and_status_2(tmp_path: Path) -> None:
    url = jwt_settings(tmp_path, algorithms=["RS256"], jwks_url="https://id.example/keys")
    for arguments, expected in (
        (("--tenant", "acme"), "auth.mode: is none, so no token is taken; make it jwt"),
        (("--tenant", "acme", "--config", url), "auth.jwt: has public keys only"),
    ):
        done = run("token", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(expected)


def test_a_key_is_made_or_read_and_printed_as_an_entry() -> None:
    made = run("hash-key", "--name", "billing", "--tenant", "acme", "--scope", "push")
    assert (made.returncode, made.stderr) == (0, "")
    (entry,) = yaml.safe_load(made.stdout.partition("Its entry:\n")[2])
    assert (entry["name"], entry["tenant_id"], entry["scopes"]) == ("billing", "acme", ["push"])
    read = run("hash-key", "-", said="canary-" * 6 + "\n")
    assert read.returncode == 0
    assert "canary" not in read.stdout + read.stderr
    short = run("hash-key", "-", said="canary")
    assert (short.returncode, short.stdout) == (2, "")
    assert "canary" not in short.stderr


@pytest.mark.parametrize(
    ("jwt", "expected"),
    [
        ({"algorithms": "HS256", "key": ""}, "auth.jwt.key: must have at least 32 bytes"),
        ({"algorithms": "HS256", "key": "canary"}, "auth.jwt.key: must have at least 32 bytes"),
        ({"algorithms": "HS256", "key": "canary-changeme" * 9}, "auth.jwt.key: is out of a manual"),
        ({"algorithms": "HS256"}, "auth.jwt.key: one of key, key_file"),
        ({"algorithms": "RS256", "key": "canary"}, "auth.jwt.key: must be a PEM"),
        ({"algorithms": "RS256", "key_file": "/nowhere"}, "auth.jwt.key_file: cannot be read"),
        ({"algorithms": "RS256", "jwks_file": "/nowhere"}, "auth.jwt.jwks_file: cannot be read"),
        ({"algorithms": "RS256", "jwks_url": "http://canary.example/"}, "auth.jwt.jwks_url: must"),
    ],
)
def test_a_key_that_is_not_good_stops_the_start_with_one_line_and_status_2(
    tmp_path: Path, jwt: dict[str, str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = jwt_settings(tmp_path, **jwt)
    for more in ([], ["--check-config"]):
        assert main(["--config", file, *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
        assert "canary" not in line


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--help"], 0, "hash-key"),
        (["token", "--help"], 0, "--expires-in"),
        (["hash-key", "--help"], 0, "standard input"),
        (["nothing"], 2, "invalid choice"),
        (["token"], 2, "--tenant"),
    ],
)
def test_commands_say_how_they_are_used(
    arguments: list[str], status: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == status
    said = capsys.readouterr()
    assert expected in said.out + said.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_with_status_0_and_a_second_one_changes_nothing(
    redis_server: RedisServer, prefix: str, number: signal.Signals
) -> None:
    async with process_service(redis_server.url, prefix) as service:
        service.send_signal(number)
        service.send_signal(number)
        assert await service.exited(within=10) == 0
        # That the loop had to wait for its processor is the machine's business, not the stop's.
        said = [line for line in service.log.splitlines() if "loop.stalled" not in line]
        for unwanted in ("Traceback", '"level":"warning"', '"level":"error"'):
            assert not [line for line in said if unwanted in line]


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
        async with asyncio.timeout(60):
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
