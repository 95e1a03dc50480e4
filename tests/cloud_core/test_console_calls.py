"""What the commands print."""

from __future__ import annotations

import pytest

from cloud_core.console.calls import show


def test_a_table_holds_no_signs_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    """Devices choose names; one with line ends and escape sequences stays in its cell."""
    show([{"name": "a\x1b[2J\nb", "end": None}], {"NAME": "name", "ENDS": "end"}, as_json=False)
    assert capsys.readouterr().out.splitlines() == ["NAME         ENDS", r"a\x1b[2J\nb"]
