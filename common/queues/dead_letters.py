"""Dead letters: what could not be used, kept with its reason, not dropped (section 5)."""

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from common.domain.errors import NotFound
from common.queues.keys import Keys
from common.queues.redis import Redis
from common.queues.scripts import ADD_LETTER, Value
from common.queues.streams import Entry, fields_of

LETTERS_KEPT = 10_000
READ_ON = 16  # letters of one read at the most; a letter may have a megabyte
READ_BYTES = 1024 * 1024  # of one read; letters as large as that are read one by one
LIST_BYTES = 4 * 1024 * 1024  # of all that are told at once; one is told whatever its size
FIELDS_KEPT = 100  # of one letter; no honest entry has more
REMEMBER_BURIED = 24 * 3600  # seconds

OWN_FIELDS = (b"reason", b"stream", b"entry_id")
RENAMED = tuple(b"original_" + name for name in OWN_FIELDS)
ENTRY_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
LARGEST_PART = 2**64 - 1  # of an entry's id; Redis takes no larger one


class LetterQueue(StrEnum):
    """Which of the two streams of dead letters."""

    EXECUTE = "execute"
    CALLBACKS = "callbacks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead letter: why it is one, the stream it came from, and the entry's own fields."""

    id: str
    reason: str
    stream: str
    fields: Mapping[bytes, bytes]

    @property
    def size(self) -> int:
        """Bytes of the entry's own fields."""
        return sum(len(name) + len(value) for name, value in self.fields.items())


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

    async def newest(
        self, queue: LetterQueue, limit: int, wanted: Callable[[Letter], bool] = lambda _: True
    ) -> list[Letter]:
        """The newest letters that are wanted, the newest first: `limit`, or what is no more than
        `LIST_BYTES`."""
        letters: list[Letter] = []
        room = LIST_BYTES
        async with contextlib.aclosing(self._newest_first(self._key(queue))) as found:
            async for letter in found:
                if not wanted(letter):
                    continue
                room -= letter.size
                if letters and room < 0:
                    break
                letters.append(letter)
                if len(letters) == limit:
                    break
        return letters

    async def _newest_first(self, key: str) -> AsyncGenerator[Letter, None]:
        """All letters, a few at a time: what one reader asks for keeps nobody else waiting."""
        before, count = "+", 1
        while True:
            found = await self._redis.call("XREVRANGE", key, before, "-", "COUNT", count)
            read = [_letter(id_, fields_of(flat)) for id_, flat in found]
            for letter in read:
                yield letter
            if len(read) < count:
                return
            before = f"({read[-1].id}"
            is_much = sum(letter.size for letter in read) >= READ_BYTES
            count = 1 if is_much else min(2 * count, READ_ON)

    async def find(self, queue: LetterQueue, letter_id: str) -> Letter:
        """One letter.

        Raises:
            NotFound.
        """
        if not _is_entry_id(letter_id):
            raise NotFound("There is no such dead letter.")
        found = await self._redis.call("XRANGE", self._key(queue), letter_id, letter_id)
        if not found:
            raise NotFound("There is no such dead letter.")
        return _letter(found[0][0], fields_of(found[0][1]))

    async def requeue_callback(self, letter_id: str) -> str:
        """Adds a letter's fields again to the stream they came from; returns the new entry's id.

        The letter goes once that is done. Two at once may add it twice, which callbacks bear.

        Raises:
            NotFound.
        """
        letter = await self.find(LetterQueue.CALLBACKS, letter_id)
        stream = letter.stream or self._keys.callbacks
        flat = [part for field in letter.fields.items() for part in field]
        entry_id: bytes = await self._redis.call("XADD", stream, "*", *flat)
        with contextlib.suppress(NotFound):  # somebody else was as quick
            await self.delete(LetterQueue.CALLBACKS, letter_id)
        return entry_id.decode()

    async def delete(self, queue: LetterQueue, letter_id: str) -> None:
        """Throws a letter away.

        Raises:
            NotFound.
        """
        if not _is_entry_id(letter_id):
            raise NotFound("There is no such dead letter.")
        if not await self._redis.call("XDEL", self._key(queue), letter_id):
            raise NotFound("There is no such dead letter.")

    def _key(self, queue: LetterQueue) -> str:
        is_execute = queue is LetterQueue.EXECUTE
        return self._keys.dead_execute if is_execute else self._keys.dead_callbacks


def _is_entry_id(text: str) -> bool:
    return ENTRY_ID.fullmatch(text) is not None and all(
        int(part) <= LARGEST_PART for part in text.split("-")
    )


def _letter(letter_id: bytes, fields: Mapping[bytes, bytes]) -> Letter:
    return Letter(
        id=letter_id.decode(),
        reason=fields.get(b"reason", b"").decode(errors="replace"),
        stream=fields.get(b"stream", b"").decode(errors="replace"),
        fields={
            name.removeprefix(b"original_") if name in RENAMED else name: value
            for name, value in fields.items()
            if name not in OWN_FIELDS
        },
    )


def _flat(fields: Mapping[bytes, bytes]) -> list[Value]:
    flat: list[Value] = []
    for name, value in list(fields.items())[:FIELDS_KEPT]:
        flat += [b"original_" + name if name in OWN_FIELDS else name, value]
    return flat
