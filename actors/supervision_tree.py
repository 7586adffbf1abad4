"""What runs under whom: the tree of `GET /actors` (contract, section 3)."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypedDict

import structlog

from actors.cell import Cell
from actors.loop_actor import LoopRef

log = structlog.get_logger(__name__)

MOST_SHOWN = 100
"""More children of one actor than this are shown as one line."""


@dataclass(frozen=True, slots=True)
class GetTree:
    """Ask a supervisor for the tree below it; answered with a `Node`."""


Node = TypedDict(
    "Node",
    {
        "name": str,
        "class": str,
        "state": str,
        "restarts": int,
        "mailbox": int,
        "children": list["Node"],
    },
)


def node_of(ref: LoopRef) -> Node:
    """An actor and those it looks after (`describe_children`)."""
    return {
        "name": ref.name.rpartition("/")[2],
        "class": ref.actor_class.__name__,
        "state": ref.state.value,
        "restarts": ref.restarts,
        "mailbox": ref.mailbox,
        "children": _children(ref._cell),
    }


def _children(cell: Cell) -> list[Node]:
    if cell.actor is None:
        return []
    try:
        return _nodes(tuple(cell.actor.describe_children()))
    except Exception:
        # an actor that cannot describe itself must not take the supervisor with it
        log.exception("children.undescribed", actor=cell.name)
        return []


def _nodes(refs: Collection[LoopRef]) -> list[Node]:
    """One node each, or one for all of a class when there are too many to read."""
    if len(refs) <= MOST_SHOWN:
        return [node_of(ref) for ref in refs]
    classes: dict[str, list[LoopRef]] = {}
    for ref in refs:
        classes.setdefault(ref.actor_class.__name__, []).append(ref)
    return [_summary(name, alike) for name, alike in classes.items()]


def _summary(actor_class: str, refs: Collection[LoopRef]) -> Node:
    states = Counter(ref.state.value for ref in refs)
    return {
        "name": actor_class.removesuffix("Actor").lower() + "s",
        "class": actor_class,
        "state": ", ".join(f"{state}: {count}" for state, count in states.most_common()),
        "restarts": sum(ref.restarts for ref in refs),
        "mailbox": sum(ref.mailbox for ref in refs),
        "children": [],
    }
