"""A push as the audit log tells of it: every ref by its name, in events of bounded size. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from craftastic.audit.service import MAX_DETAILS_CHARS
from craftastic.logs import redact
from craftastic.pushes._model import PushIntent, RefResult, RefUpdate

REFS_PER_EVENT = 50
MAX_REASON_CHARACTERS = 200
SHOWN_OPTIONS = 10
MAX_OPTION_CHARACTERS = 100
ROOM = MAX_DETAILS_CHARS - 200
"""Characters of an event for its refs; what they are wrapped in takes the rest."""

Details = dict[str, Any]


def started(intent: PushIntent) -> list[Details]:
    """Return what is said of a push before it goes on."""
    told = [_wrapped(intent, refs) for refs in _packed(_entries(intent.updates, {}))]
    return told if not intent.options else [_wrapped(intent, (), options=_shown(intent)), *told]


def ended(intent: PushIntent, results: Mapping[str, RefResult]) -> list[tuple[str, Details]]:
    """Return what is said of a push at its end, and how what it tells of ended."""
    groups: dict[str, list[RefUpdate]] = {}
    for update in intent.updates:
        groups.setdefault(results[update.ref].outcome.value, []).append(update)
    reasons = {ref: result.reason for ref, result in results.items()}
    return [
        (outcome, _wrapped(intent, refs))
        for outcome, updates in groups.items()
        for refs in _packed(_entries(updates, reasons))
    ]


def refused(intent: PushIntent, reasons: Mapping[str, str]) -> Details:
    """Return what is said of a push that the policy refused: one event, with what it has room for.

    Nothing came of the push, and whoever may not push can try it as often as they like.
    """
    refs = next(_packed(_entries(intent.updates, reasons)))
    more: Details = {}
    if len(intent.updates) > len(refs):
        more["more"] = len(intent.updates) - len(refs)
    if intent.options:
        more["options"] = _shown(intent)
    return _wrapped(intent, refs, **more)


def _wrapped(intent: PushIntent, refs: Sequence[Mapping[str, str]], **more: Any) -> Details:
    return {"push": intent.id.hex, **({"refs": refs} if refs else {}), **more}


def _shown(intent: PushIntent) -> list[str]:
    shown = [one[:MAX_OPTION_CHARACTERS] for one in intent.options[:SHOWN_OPTIONS]]
    left = len(intent.options) - len(shown)
    return [*shown, f"and {left} more"] if left else shown


def _entries(
    updates: Iterable[RefUpdate], reasons: Mapping[str, str | None]
) -> Iterator[dict[str, str]]:
    for update in updates:
        entry = {"ref": update.ref, "old": update.old, "new": update.new}
        reason = reasons.get(update.ref)
        if reason is not None:
            whole = entry | {"reason": reason[:MAX_REASON_CHARACTERS]}
            entry = whole if _size(whole) <= ROOM else entry
        yield entry


def _packed(entries: Iterable[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    packed, used = list[dict[str, str]](), 0
    for entry in entries:
        size = _size(entry)
        if packed and (used + size > ROOM or len(packed) == REFS_PER_EVENT):
            yield packed
            packed, used = [], 0
        packed.append(entry)
        used += size
    yield packed


def _size(entry: Mapping[str, str]) -> int:
    # As it will be written: what looks like a secret is hidden first.
    return len(json.dumps(redact(entry), separators=(",", ":"))) + 1
