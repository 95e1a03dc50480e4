"""How templates come to be pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred, succeed

from cloud_core.transports.http.ui import rendering
from cloud_core.transports.http.ui.assets import Assets
from cloud_core.transports.http.ui.rendering import Templates


def test_the_first_page_has_all_others_compiled_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, in a thread: whoever opens the next page does not hold up devices."""
    handed: list[Callable[[], None]] = []

    def to_thread(work: Callable[[], None]) -> Deferred[None]:
        handed.append(work)
        return succeed(None)

    monkeypatch.setattr(rendering, "deferToThread", to_thread)
    templates = Templates(Assets())
    for _ in range(2):
        assert "Not possible" in templates.render(
            "fault.html", visitor=None, sections=(), path="/ui", url="/ui", theme="auto", notice="", text="x",
            title="Not possible",
        )  # fmt: skip
    (work,) = handed
    work()
    environment = templates._environment
    assert environment.cache is not None
    assert len(environment.cache) == len(environment.list_templates())
