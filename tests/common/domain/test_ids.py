"""Names are what the contract allows, and stay apart when they are put together."""

import itertools
import uuid

import pytest

from common.domain.ids import SessionId, SessionKey, TenantId, is_outside_id, new_id


@pytest.mark.parametrize("good", ["a", "Z9", "user@example.org", "a" * 128, "0_.-@"])
def test_an_id_from_outside_is_a_plain_word(good: str) -> None:
    assert is_outside_id(good)


@pytest.mark.parametrize(
    "bad", ["", "a" * 129, ".a", "-a", "_a", "@a", "a b", "a:b", "{a}", "a\n", "\na", "é", "a/b"]
)
def test_anything_else_is_refused(bad: str) -> None:
    assert not is_outside_id(bad)


def test_no_two_sessions_share_a_name() -> None:
    words = ["a", "b", "a.b", "a-b", "a_b", "a@b", "ab"]
    keys = {SessionKey(TenantId(t), SessionId(s)) for t, s in itertools.product(words, words)}
    assert len({str(key) for key in keys}) == len(keys) == len(words) ** 2


def test_what_we_make_is_a_uuid_and_new_each_time() -> None:
    made = {new_id() for _ in range(4)}
    assert len(made) == 4
    assert all(str(uuid.UUID(each)) == each and is_outside_id(each) for each in made)
