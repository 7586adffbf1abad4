"""Names of keys: the contract's own as it spells them, ours in the slots of their scripts."""

import itertools
import re

import pytest

from common.domain.ids import TaskId, TenantId
from common.queues.keys import DUE_SHARDS, Keys
from tests.support.stores import key_of

KEYS = Keys("P:")
TASK = TaskId("task-1")


def slot_of(key: str) -> str:
    """What Redis Cluster hashes: what stands in the first braces, else all of it."""
    tag = re.search(r"\{([^}]+)\}", key)
    return tag.group(1) if tag else key


def test_the_contracts_names_are_spelled_as_it_does_and_carry_no_braces() -> None:
    names = [
        *KEYS.work_streams,
        KEYS.attempt(TASK),
        KEYS.cancel(TASK),
        KEYS.control,
        KEYS.actions,
        KEYS.dead_execute,
        KEYS.dead_callbacks,
    ]
    assert names == [
        *("P:execute:high", "P:execute:normal", "P:execute:low"),
        *("P:attempt:task-1", "P:cancel:task-1", "P:control", "P:actions"),
        *("P:dead:execute", "P:dead:callbacks"),
    ]


def test_all_keys_of_a_session_share_its_slot() -> None:
    session = key_of("s-1")
    keys = [
        KEYS.session_meta(session),
        KEYS.session_log(session),
        KEYS.session_open(session),
        KEYS.session_channel(session),
        KEYS.task(session, TASK),
        KEYS.task_text(session, TASK),
        KEYS.task_parked(session, TASK),
        KEYS.task_waiting(session, TASK),
        KEYS.idempotency(session, "a key with {braces}"),
        KEYS.pushed(session, "action"),
    ]
    assert len(set(keys)) == len(keys)
    assert {slot_of(key) for key in keys} == {"acme:s-1"}


def test_what_one_script_touches_beside_a_stream_shares_its_slot() -> None:
    for letters in (KEYS.dead_execute, KEYS.dead_callbacks):
        assert slot_of(KEYS.buried(letters, "stream:1-0")) == letters
    assert slot_of(KEYS.callbacks) == KEYS.dead_callbacks
    assert slot_of(KEYS.instances) == slot_of(KEYS.instance_facts)


def test_what_a_message_is_held_to_shares_its_tenants_slot() -> None:
    tenant = TenantId("acme")
    assert slot_of(KEYS.usage(tenant, 20_000)) == "acme"


def test_no_two_things_share_a_key() -> None:
    words = ["a", "b", "a.b", "a-b", "events", "meta", "text"]
    keys = []
    for tenant, session in itertools.product(words, words):
        key = key_of(session, tenant)
        keys += [KEYS.session_log(key), KEYS.session_meta(key), KEYS.session_channel(key)]
        for word in words:
            task = TaskId(word)
            keys += [KEYS.task(key, task), KEYS.task_text(key, task)]
            keys += [KEYS.idempotency(key, word), KEYS.pushed(key, word)]
    assert len(set(keys)) == len(keys)


def test_a_broadcast_of_one_tenant_is_not_that_of_another() -> None:
    one, other = TenantId("a"), TenantId("b")
    assert KEYS.broadcast_done(one, "id") != KEYS.broadcast_done(other, "id")


def test_due_times_are_spread_over_all_shards() -> None:
    shards = {KEYS.due(TaskId(f"task-{i}")) for i in range(100)}
    assert shards == {KEYS.due_shard(i) for i in range(DUE_SHARDS)}


@pytest.mark.parametrize("name", ["broadcasts", "scan_lease", "instances", "callbacks"])
def test_every_name_begins_with_the_prefix(name: str) -> None:
    assert getattr(KEYS, name).startswith("P:")
    assert KEYS.canary("i").startswith("P:")
    assert KEYS.task_session(TASK).startswith("P:")
