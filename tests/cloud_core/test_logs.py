"""Log lines as JSON."""

from __future__ import annotations

import io
import json
from typing import Any

from twisted.logger import Logger, textFileLogObserver

from cloud_core.logs import json_observer, of_worker


def lines_of(*emitted: Any) -> list[dict[str, Any]]:
    """What the observer writes for what each callable emits."""
    out = io.StringIO()
    for emit in emitted:
        emit(Logger(namespace="cloud_core.test", observer=json_observer(out)))
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_has_time_level_logger_message_and_its_members() -> None:
    """Members stand under their own names, `ref` among them."""
    (line,) = lines_of(lambda log: log.info("Refused: {reason} {ref}", reason="R", ref="7K2MQ-9XHTR", count=3))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "logger": "cloud_core.test", "message": "Refused: R 7K2MQ-9XHTR", "reason": "R",
        "ref": "7K2MQ-9XHTR", "count": 3,
    }  # fmt: skip


def test_whatever_a_peer_sends_stays_one_line() -> None:
    """Line ends and bytes that are no text cannot forge or break a line; long values are cut."""
    (line,) = lines_of(lambda log: log.warn("From {who}", who='x\n{"level":"error"}\udcff', long="y" * 9_000))
    assert line["level"] == "warn"
    assert line["message"] == 'From x\n{"level":"error"}\\udcff'
    assert len(line["long"]) == 2_000


def test_members_do_not_displace_what_every_line_has() -> None:
    """A member named like one of the line's own gets an underscore; objects other than plain values are left out."""
    (line,) = lines_of(lambda log: log.error("E", message="mine", error="why", thing=object()))
    assert (line["message"], line["message_"], line["error_"]) == ("E", "mine", "why")
    assert "thing" not in line


def test_an_exception_comes_with_its_traceback() -> None:
    """`error` holds the traceback, and none of the local variables."""

    def fail(log: Logger) -> None:
        hidden = "local-value"
        try:
            raise ValueError(str(len(hidden)))
        except ValueError:
            log.failure("Failed")

    (line,) = lines_of(fail)
    assert (line["level"], line["message"]) == ("critical", "Failed")
    assert "ValueError" in line["error"]
    assert "local-value" not in line["error"].replace('hidden = "local-value"', "")


def test_a_worker_says_which_one_it_is() -> None:
    """In JSON as a member, in text behind the logger's name."""
    out, text = io.StringIO(), io.StringIO()
    for observer in (json_observer(out), textFileLogObserver(text)):
        Logger(namespace="cloud_core.test", observer=of_worker(3, observer)).warn("E")
    assert json.loads(out.getvalue())["worker"] == 3
    assert "[cloud_core.test#warn worker 3] E" in text.getvalue()
