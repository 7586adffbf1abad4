"""Good input made bad: JSON values, their text, and bytes; by dice, so that a seed says it all."""

import random
import string
from collections.abc import Callable, Mapping
from typing import Any

import orjson

Json = Mapping[str, Any]

NASTY_TEXTS = (
    *("", " ", "\x00", "\r\n", "\x1b[31m", "\u202e", "\ufeff", "😀", "{}", "*", "../..", "a:b"),
    *("%s%n", "'; DROP", "<script>", "__proto__", "-1", "NaN", "x" * 129, "é" * 200, "y" * 70_000),
)
NASTY_NUMBERS = (0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63, 2**64 - 1, 1e300, -1e-300, 0.1, 1.5)
# What no encoder would write: put into text as it is.
NASTY_JSON = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e400", b"1" * 5000, b"01", b"+1", b"0x1", b"1_0", b"-"),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xff"', b'"\xed\xa0\x80"', b'"\t"'),
    *(b"[" * 40 + b"]" * 40, b"[" * 1200 + b"]" * 1200, b'{"a":' * 40 + b"1" + b"}" * 40),
    *(
        b"tru",
        b"'a'",
        b"/**/1",
        b'{"a":1,"a":2}',
        b"123456789012345678901234567890",
        b"\xef\xbb\xbf1",
    ),
)
DEEPEST = 4


class Mutator:
    """Seeded dice with a taste for what is just not right."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def chance(self, share: float) -> bool:
        return self.dice.random() < share

    def text(self, most: int = 12) -> str:
        letters = string.ascii_letters + string.digits + "_.@-"
        return "".join(self.dice.choices(letters, k=self.dice.randint(1, most)))

    def json(self, depth: int = 0) -> Any:
        """Any JSON value."""
        makers: list[Callable[[], Any]] = [
            lambda: self.dice.choice(NASTY_TEXTS),
            self.text,
            lambda: self.dice.choice(NASTY_NUMBERS),
            lambda: self.dice.choice((None, True, False)),
        ]
        if depth < DEEPEST:
            makers.append(lambda: [self.json(depth + 1) for _ in range(self.dice.randint(0, 3))])
            makers.append(
                lambda: {self.text(): self.json(depth + 1) for _ in range(self.dice.randint(0, 3))}
            )
        return self.dice.choice(makers)()

    def of(self, schema: Json) -> Any:
        """A value that a schema allows; of what it does not say, anything."""
        if "enum" in schema:
            return self.dice.choice(schema["enum"])
        kind = schema.get("type", "object")
        if isinstance(kind, list):
            kind = self.dice.choice(kind)
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                most = min(schema.get("maxItems", 3), 3)
                items = schema.get("items", {})
                return [self.of(items) for _ in range(self.dice.randint(1, most))]
            case "integer" | "number":
                return self.dice.randint(int(schema.get("minimum", 0)), 60)
            case "null":
                return None
            case "boolean":
                return self.chance(0.5)
            case _:
                return self._string(schema)

    def _object(self, schema: Json) -> Json:
        properties = schema.get("properties", {})
        if not properties:
            return {self.text(): self.json(2) for _ in range(self.dice.randint(0, 2))}
        required = schema.get("required", ())
        return {
            name: self.of(each)
            for name, each in properties.items()
            if name in required or self.chance(0.4)
        }

    def _string(self, schema: Json) -> str:
        if schema.get("format") == "uuid":
            return self._uuid()
        return self.text(min(12, schema.get("maxLength", 12)))

    def _uuid(self) -> str:
        text = f"{self.dice.getrandbits(128):032x}"
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    def broken(self, value: Json) -> Json:
        """The object with one or two fields changed, dropped or added."""
        changed = dict(value)
        for _ in range(self.dice.randint(1, 2)):
            name = self.dice.choice([*changed, self.text()]) if changed else self.text()
            if self.chance(0.3):
                changed.pop(name, None)
            else:
                changed[name] = self.json()
        return changed

    def encoded(self, value: Any) -> bytes:
        """JSON text, now and then with something in it that no encoder would write."""
        try:
            text = orjson.dumps(value)
        except (TypeError, orjson.JSONEncodeError):  # an integer of more than 64 bits
            text = b"{}"
        if self.chance(0.15) and b":" in text:
            at = self.dice.choice([i for i, byte in enumerate(text) if byte == ord(":")]) + 1
            text = text[:at] + self.dice.choice(NASTY_JSON) + text[at:].lstrip(b'"')[1:]
        if self.chance(0.1):
            text = b'{"a":1,' + text[1:] + self.dice.choice((b"", b"\n", b" x", b"\x00"))
        return text

    def garbled(self, data: bytes) -> bytes:
        """Bytes with some of them flipped, dropped, doubled or replaced."""
        made = bytearray(data)
        for _ in range(self.dice.randint(1, 4)):
            at = self.dice.randrange(len(made) + 1)
            match self.dice.randrange(5):
                case 0 if at < len(made):
                    made[at] ^= 1 << self.dice.randrange(8)
                case 1:
                    del made[at : at + self.dice.randint(1, 8)]
                case 2:
                    made[at:at] = made[max(0, at - 8) : at]
                case 3:
                    made[at:at] = self.dice.randbytes(self.dice.randint(1, 6))
                case _:
                    made[at:at] = self.dice.choice(NASTY_JSON)[:64]
        return bytes(made)
