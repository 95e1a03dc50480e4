"""Imports of devices on a running core: by the command line, and killed in the middle."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from cloud_core.__main__ import main
from tests.support.server import CoreProcess

WAIT_S = 60.0
ROWS = 5_000


def run(core: CoreProcess, *arguments: str) -> Result:
    environment = {"CLOUD_CORE_URL": core.http, "CLOUD_CORE_TOKEN": core.jwt}
    return CliRunner().invoke(main, ["device", *arguments], env=environment)


def batch_of(core: CoreProcess, identifier: str) -> dict[str, Any]:
    found: dict[str, Any] = core.rest.get(f"/api/imports/{identifier}")
    return found


def test_the_command_line_plans_imports_and_undoes(core: CoreProcess, tmp_path: Path) -> None:
    """Exit codes by cause; bad rows are shown, and written to a file that can be corrected and loaded."""
    file, errors = tmp_path / "devices.csv", tmp_path / "errors.csv"
    file.write_text("Serial;type\nSN-1;sensor\nSN-2;sensor\n<x>;sensor\n", encoding="utf-8")
    planned = run(core, "import", str(file), "--plan", "--map", "Serial=name")
    assert (planned.exit_code, "2 CREATE, 1 ERROR" in planned.output, "malformed" in planned.output) == (4, True, True)
    refused = run(core, "import", str(file), "--map", "Serial=name", "--json")
    assert (refused.exit_code, json.loads(refused.output)["state"]) == (4, "REFUSED")
    partial = run(core, "import", str(file), "--map", "Serial=name", "--mode", "partial", "--errors", str(errors))
    assert (partial.exit_code, "2 CREATED, 1 ERROR" in partial.output) == (4, True), partial.output
    errors.write_text(errors.read_text().replace("<x>", "SN-3"), encoding="utf-8")
    corrected = run(core, "import", str(errors), "--json")
    assert (corrected.exit_code, json.loads(corrected.output)["counts"]) == (0, {"CREATED": 1}), corrected.output
    undone = run(core, "import-undo", json.loads(corrected.output)["id"])
    assert (undone.exit_code, "1 UNDONE" in undone.output) == (0, True)
    unknown = run(core, "import", str(file))
    assert (unknown.exit_code, "Unknown column 'Serial'" in unknown.output) == (4, True)


def test_an_import_survives_that_the_core_is_killed(core: CoreProcess, tmp_path: Path) -> None:
    """It goes on by itself at the next start: each row has its device, credentials and attributes, none twice."""
    file = tmp_path / "devices.ndjson"
    rows = (f'{{"name": "KILL-{n}", "access_token": "token-{n}", "shared:n": {n}}}\n' for n in range(ROWS))
    file.write_text("".join(rows), encoding="utf-8")
    with file.open("rb") as content:
        batch = core.rest.upload("/api/imports", content, "application/x-ndjson", {})
    while batch["done"] < ROWS // 4:
        batch = batch_of(core, batch["id"])
    core.kill()
    assert batch["state"] == "APPLYING", "it was too quick to be killed in the middle"
    core.start()
    assert batch_of(core, batch["id"])["done"] >= batch["done"], "what was on disk is not done again"
    deadline_s = time.monotonic() + WAIT_S
    while (batch := batch_of(core, batch["id"]))["state"] == "APPLYING" and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert (batch["state"], batch["counts"]) == ("APPLIED", {"CREATED": ROWS})
    assert core.rest.get("/api/tenant/devices", pageSize=1, page=0, textSearch="KILL-")["totalElements"] == ROWS
    assert [n for n in range(ROWS) if shared_of(core, f"token-{n}") != {"n": n}] == []


def shared_of(core: CoreProcess, token: str) -> Any:
    """What the device that has this token is told."""
    return core.rest.get(f"/api/v1/{token}/attributes", sharedKeys="n").get("shared")
