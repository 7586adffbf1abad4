"""Long histories of joining, replaying and going live: no hole, none twice, no silent loss."""

from hypothesis import given
from hypothesis import strategies as st

from common.domain.resume import ResumeRequest
from tests.support.world import Log, World

EPOCH = "epoch-1"
requests = st.one_of(
    st.just(ResumeRequest()),
    st.just(ResumeRequest(offset=0)),
    st.builds(ResumeRequest, epoch=st.just(EPOCH), offset=st.integers(0, 12)),
    st.builds(ResumeRequest, epoch=st.just("epoch-0"), offset=st.integers(0, 12)),
)
logs = st.builds(
    lambda last, trimmed: Log(EPOCH, last, min(trimmed, last) + 1),
    st.integers(0, 10),
    st.integers(0, 10),
)
# Those that break a log are rare, else most histories would end at once.
STEADY = {"append", "append_unheard", "append_heard_twice", "rebuild", "hear", "read", "turn_page"}


@given(logs, requests, st.integers(1, 4), st.data())
def test_whatever_happens_the_client_has_everything_or_is_told_that_it_cannot(
    log: Log, request: ResumeRequest, page_size: int, data: st.DataObject
) -> None:
    world = World(log, request, page_size)
    for _ in range(data.draw(st.integers(0, 40))):
        possible = world.possible()
        if data.draw(st.integers(0, 19)):
            possible = [move for move in possible if move in STEADY]
        world.do(data.draw(st.sampled_from(possible)))
    world.settle()
    world.check_settled()
