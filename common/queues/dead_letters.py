"""Dead letters: what could not be used, kept with its reason, not dropped (section 5)."""

from collections.abc import Mapping

from common.queues.keys import Keys
from common.queues.redis import Redis
from common.queues.scripts import ADD_LETTER, Value
from common.queues.streams import Entry

LETTERS_KEPT = 10_000
FIELDS_KEPT = 100  # of one letter; no honest entry has more
REMEMBER_BURIED = 24 * 3600  # seconds

OWN_FIELDS = (b"reason", b"stream", b"entry_id")


class DeadLetters:
    """Two streams: one beside the callbacks (and pushes), one beside the work streams.

    A letter is written before its entry is removed from its own stream, and only once: a crash
    between the two has it buried again, which its mark makes harmless.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def bury_callback(self, stream: str, entry: Entry, reason: str) -> bool:
        """Keeps a callback or push. False if another instance had done so."""
        return await self._bury(self._keys.dead_callbacks, stream, entry, reason)

    async def bury_work(self, stream: str, entry: Entry, reason: str) -> bool:
        """Keeps an entry of a work stream. False if another instance had done so."""
        return await self._bury(self._keys.dead_execute, stream, entry, reason)

    async def _bury(self, letters: str, stream: str, entry: Entry, reason: str) -> bool:
        mark = self._keys.buried(letters, f"{stream}:{entry.id.decode()}")
        about: tuple[Value, ...] = ("reason", reason, "stream", stream, "entry_id", entry.id)
        added = await self._redis.run(
            ADD_LETTER,
            [letters, mark],
            *(LETTERS_KEPT, REMEMBER_BURIED, *about, *_flat(entry.fields)),
        )
        return bool(added)


def _flat(fields: Mapping[bytes, bytes]) -> list[Value]:
    flat: list[Value] = []
    for name, value in list(fields.items())[:FIELDS_KEPT]:
        flat += [b"original_" + name if name in OWN_FIELDS else name, value]
    return flat
