"""Redis by TLS: these tests need a redis-server that is built with it, as Debian's is."""

import pytest

from tests.support.certificates import Authority
from tests.support.needs import left_out
from tests.support.tls import PROGRAM, redis_with_tls

collect_ignore_glob = left_out(
    __file__, packages=["cryptography"], programs=() if redis_with_tls() else (PROGRAM,)
)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))
