"""The canary can sing: a secret that is let out fails the test, which is named with the place."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import canary
from tests.support.canary import CANARY, look, look_at_answer, take_hits
from tests.support.processes import PROJECT

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLWl0"  # noqa: S105
LEAKS = """
import logging, sys
from tests.support.canary import CANARY, look

def test_by_print(): print("the key is " + CANARY)
def test_by_log(): logging.getLogger("x").warning("wrong password " + CANARY)
def test_by_error(): print("a trace " + CANARY, file=sys.stderr)
def test_of_a_process(): look("log of an orchestrator", "one\\ntwo " + CANARY)
def test_by_token(): print("?token=" + "{token}")
def test_that_is_right(): print("nothing")
"""


def test_a_test_that_lets_a_secret_out_fails_and_is_named(tmp_path: Path) -> None:
    file = tmp_path / "test_leaks.py"
    file.write_text(LEAKS.replace("{token}", TOKEN))
    options = ("-p", "tests.support.canary", "-c", "/dev/null", "--rootdir", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "-p", "no:cacheprovider", str(file)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "6 passed" in done.stdout
    assert "5 errors" in done.stdout
    for name in ("by_print", "by_log", "by_error", "of_a_process", "by_token"):
        assert f"test_{name} let a secret out" in done.stdout
    for place in ("Captured stdout call", "Captured log call", "log of an orchestrator"):
        assert f"{place}: …" in done.stdout


@pytest.mark.parametrize("secret", [CANARY, TOKEN])
def test_a_secret_is_found_in_what_shows_the_inside_and_in_problems(secret: str) -> None:
    body = f'{{"detail":"{secret}"}}'.encode()
    for path, status in (("/metrics", 200), ("/actors/supervision?limit=1", 200), ("/x", 404)):
        look_at_answer(path, status, {}, body)
        assert len(take_hits()) == 1, path
    look_at_answer("/api/chat/status", 200, {"X-Request-ID": secret}, b"")
    assert len(take_hits()) == 1


def test_what_a_caller_reads_back_is_no_leak() -> None:
    look_at_answer("/api/sessions/acme/s/events", 200, {}, CANARY.encode())
    look("log", "canary:7a1c eyJ.eyJ.x no secret at all")
    assert take_hits() == []


def test_every_secret_that_tests_share_has_its_canary() -> None:
    from tests.fuzz.conftest import KEY
    from tests.support import callers, redis_users
    from tests.support.issuer import HMAC_KEY

    shared = [callers.KEY, callers.OPERATOR_KEY, HMAC_KEY, KEY, *redis_users.PASSWORDS.values()]
    assert all(CANARY in secret for secret in shared)
    assert canary.CANARY == CANARY
