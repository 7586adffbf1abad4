"""The checker puts together what clients and executors wrote down, and what Redis holds."""

from pathlib import Path

import orjson
import pytest
import redis

from benchmarks.rig.checker import BAD_INPUT, Checker
from benchmarks.rig.final_state import FinalState
from benchmarks.rig.findings import Findings
from benchmarks.rig.records import Journal
from common.domain.ids import SessionId, SessionKey, TaskId, TenantId
from common.queues.keys import CALLBACK_GROUP, Keys
from tests.benchmarks.recorded import SESSION, TASK, TENANT, ClientRecord, good_story
from tests.support.redis_server import RedisServer

KEY = SessionKey(TenantId(TENANT), SessionId(SESSION))


class Case:
    """A folder of records and a Redis, in which the good story has happened to the end."""

    def __init__(self, folder: Path, server: RedisServer, prefix: str) -> None:
        self.folder = folder
        self.client = ClientRecord(folder)
        self.redis = redis.Redis(port=server.port)
        self.keys = Keys(prefix)
        self.state = FinalState(server.port, prefix)
        self.redis.hset(self.keys.session_meta(KEY), mapping={"epoch": "e", "last": 6})
        for each in good_story():
            entry = {name: each[name] for name in ("type", "data", "task_id")}
            log = self.keys.session_log(KEY)
            self.redis.xadd(log, {"e": orjson.dumps(entry)}, id=f"{each['offset']}-0")
        self.end_as("completed")

    def end_as(self, status: str) -> None:
        self.redis.hset(self.keys.task(KEY, TaskId(TASK)), "status", status)

    def tab_sees_all(self, tab: int = 0) -> None:
        self.client.connects([None, 0], tab=tab)
        self.client.sees(good_story(), tab=tab)

    def checker(self) -> Checker:
        return Checker(self.folder, self.state)

    def check(self) -> Findings:
        return self.checker().check()


@pytest.fixture
def case(tmp_path: Path, redis_server: RedisServer, prefix: str) -> Case:
    return Case(tmp_path, redis_server, prefix)


def test_a_good_story_is_clean_and_counted(case: Case) -> None:
    case.tab_sees_all(0)
    case.tab_sees_all(1)
    case.client.was_answered(202)
    checker = case.checker()
    assert checker.check().is_clean
    assert (checker.totals.accepted, checker.totals.ends) == (1, {"completed": 1})
    assert (checker.totals.events, checker.totals.connections) == (6, 2)


def test_a_tab_that_is_not_at_the_logs_end_has_lost_what_is_missing(case: Case) -> None:
    case.tab_sees_all(0)
    case.client.connects([None, 0], tab=1)
    case.client.sees(good_story()[:4], tab=1)
    case.client.was_answered(202)
    assert case.check().counts == {"lost": 2}


def test_what_redis_keeps_is_what_tabs_saw(case: Case) -> None:
    case.redis.delete(case.keys.session_log(KEY))
    case.redis.xadd(
        case.keys.session_log(KEY), {"e": b'{"type":"agent_event","data":{}}'}, id="6-0"
    )
    case.tab_sees_all()
    case.client.was_answered(202)
    assert case.check().counts == {"conflicting": 1}


def test_an_accepted_task_that_nobody_heard_of_is_lost(case: Case) -> None:
    case.tab_sees_all()
    case.client.was_answered(202)
    case.client.was_answered(202, task="task-2", key="key-2")
    assert case.check().counts == {"lost": 1}


def test_an_accepted_task_without_an_end_is_unended(case: Case) -> None:
    case.redis.hset(case.keys.session_meta(KEY), "last", 5)
    case.redis.xdel(case.keys.session_log(KEY), "6-0")
    case.client.connects([None, 0])
    case.client.sees(good_story()[:5])
    case.client.was_answered(202)
    assert case.check().counts == {"unended": 1}


def test_a_task_that_redis_knows_to_have_ended_otherwise_is_altered(case: Case) -> None:
    case.end_as("failed")
    case.tab_sees_all()
    case.client.was_answered(202)
    assert case.check().counts == {"altered": 1}


def test_one_key_that_became_two_tasks_is_duplicated(case: Case) -> None:
    case.tab_sees_all()
    case.client.was_answered(202)
    case.client.was_answered(202, task="task-2")
    assert case.check().counts == {"duplicated": 1, "lost": 1}


def test_a_message_that_was_never_answered_may_have_run(case: Case) -> None:
    case.tab_sees_all()
    case.client.was_answered(0)
    checker = case.checker()
    assert checker.check().is_clean
    assert (checker.totals.indeterminate, checker.totals.indeterminate_ended) == (1, 1)


def test_an_answer_that_nobody_expects_is_unhandled(case: Case) -> None:
    case.tab_sees_all()
    case.client.was_answered(500)
    assert case.check().counts == {"unhandled": 1}


@pytest.mark.parametrize(
    ("status", "kind"), [(200, "altered"), (202, None), (409, None), (404, "unhandled")]
)
def test_what_a_cancel_was_answered_is_kept(case: Case, status: int, kind: str | None) -> None:
    case.tab_sees_all()
    case.client.was_answered(202)
    case.client.journal.write(cancel=TASK, status=status, answer={})
    assert case.check().counts == ({kind: 1} if kind else {})


def test_what_is_left_in_redis_is_pending(case: Case) -> None:
    case.tab_sees_all()
    case.client.was_answered(202)
    case.redis.xgroup_create(case.keys.callbacks, CALLBACK_GROUP, "0", mkstream=True)
    case.redis.xadd(case.keys.callbacks, {"a": "b"})
    case.redis.xreadgroup(CALLBACK_GROUP, "gone", {case.keys.callbacks: ">"})
    case.redis.hset(case.keys.task_parked(KEY, TaskId(TASK)), "7", "x")
    assert case.check().counts == {"pending": 3}  # added, taken, and what waits for a gap


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"status": 422}, None),
        ({"status": 0}, None),
        ({"status": 503}, None),
        ({"status": 500}, "unhandled"),
        ({"status": 202}, "unhandled"),
        ({"status": 404, "foreign": True}, None),
        ({"status": 200, "foreign": True}, "cross_tenant"),
        ({"status": 409, "foreign": True}, "cross_tenant"),
    ],
)
def test_bad_input_is_refused_and_strangers_find_nothing(
    case: Case, line: dict[str, object], kind: str | None
) -> None:
    case.tab_sees_all()
    case.client.was_answered(202)
    Journal(case.folder / BAD_INPUT).write(kind="something", **line)
    assert case.check().counts == ({kind: 1} if kind else {})


@pytest.mark.parametrize(("letter", "count"), [("unreadable", 0), ("mismatch", 1), (None, 1)])
def test_rubbish_is_found_among_the_dead_letters_with_its_reason(
    case: Case, letter: str | None, count: int
) -> None:
    case.tab_sees_all()
    case.client.was_answered(202)
    journal = Journal(case.folder / "executor-1.jsonl")
    journal.write(bad="0123456789abcdef", kind="no field of ours", reason="unreadable")
    journal.write(sent="0123456789abcdef")
    if letter is not None:
        fields: dict[str | bytes, str | bytes] = {"rubbish": "0123456789abcdef", "reason": letter}
        case.redis.xadd(case.keys.dead_callbacks, fields)  # type: ignore[arg-type]
    assert case.check()["lost"] == count
