"""What the supervisor tells is such that the gateway takes it, whatever a hook has said."""

import json

import pytest

from craftastic.agent_runs._supervisor_door import MAX_LINE
from craftastic.agent_runs._supervisor_reports import Reports
from craftastic.gateway.agent_routes import MAX_BODY_BYTES, EventBody

LAUNCH = {"gateway": "http://gateway:1/agent/1", "token": "t", "nonce": "n"}
ROOM = 1 << 10
"""For the rest of a hook's line."""


@pytest.mark.parametrize(
    "text",
    [
        json.dumps("an emoji that a program has cut in two: \ud83d"),
        json.dumps({"a name, too: \ude00": 1}),
        json.dumps("ж" * ((MAX_LINE - ROOM) // 2), ensure_ascii=False),
        json.dumps("😀" * ((MAX_LINE - ROOM) // 4), ensure_ascii=False),
        json.dumps("\x01" * ((MAX_LINE - ROOM) // 6)),
        "NaN",
        "1e999",
        "9" * 4000,
    ],
    ids=["half", "half in a name", "wide", "wider", "controls", "nan", "infinite", "long"],
)
def test_the_gateway_takes_every_report_of_a_line_that_the_supervisor_takes(text: str) -> None:
    reports = Reports(LAUNCH)

    reports.put("Stop", {"message": json.loads(text)})

    [event] = reports.queue
    assert len(event.body) <= MAX_BODY_BYTES
    assert EventBody.model_validate_json(event.body).event == "Stop"
