"""A Redis whose users are those of `config/redis/users.conf`, and what it refused them."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.support.canary import CANARY
from tests.support.processes import PROJECT
from tests.support.redis_server import RedisServer, redis_binary

USERS = PROJECT / "config" / "redis" / "users.conf"
PREFIX = "orchestrator:"  # what the file is about
PASSWORDS = {name: f"{CANARY}-of-{name}" for name in ("orchestrator", "worker", "admin")}


@dataclass(frozen=True, slots=True)
class GuardedRedis:
    """A running server that lets nobody in but its users."""

    server: RedisServer

    def url(self, user: str, password: str | None = None) -> str:
        shown = f"{user}:{password or PASSWORDS[user]}"
        return self.server.url.replace("//", f"//{shown}@")

    def refusals(self) -> list[dict[str, Any]]:
        """All that somebody was not permitted to do."""
        with redis.Redis.from_url(self.url("admin"), decode_responses=True) as admin:
            found: list[dict[str, Any]] = admin.acl_log()
        return found


@contextmanager
def guarded_redis(folder: Path, *, binary: str | None = None) -> Iterator[GuardedRedis]:
    """Started as docs/security.md says, with an `admin` beside the users, for the test to look."""
    users = USERS.read_text()
    for name in ("orchestrator", "worker"):
        digest = hashlib.sha256(PASSWORDS[name].encode()).hexdigest()
        users = users.replace(f"{name.upper()}_PASSWORD_SHA256", digest)
    admin = f"user admin on >{PASSWORDS['admin']} ~* &* +@all\n"
    (folder / "users.conf").write_text(users + admin)
    options = ("--include", str(folder / "users.conf"))
    with RedisServer(*options, binary=binary or redis_binary()) as server:
        yield GuardedRedis(server)


def permitted(user: str) -> set[str]:
    """The commands of a user in the file, as it spells them: `xgroup|create`."""
    (line,) = re.findall(rf"^user {user} .*$", USERS.read_text(), re.MULTILINE)
    return set(re.findall(r" \+([a-z|]+)", line))
