"""Commands that need no running core: configuration, doctor, backup; beside one that runs, too."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_core.storage.migrations import NEWEST
from tests.support.console import Console
from tests.support.nats_servers import NatsServer, free_port
from tests.support.server import CoreProcess

SECRET = "s3cret-of-mine"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path_factory.mktemp("offline") / "data").start()
    process.rest.post("/api/device?accessToken=the-token", {"name": "SN-1", "type": "sensor"})
    yield process
    process.stop()


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.chdir(tmp_path)
    return Console(tmp_path)


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "core.toml"
    file.write_text(text)
    return str(file)


# -- configuration --------------------------------------------------------------------------------


def test_every_problem_is_said_at_once(console: Console, tmp_path: Path) -> None:
    """Unknown keys and sections with what is meant, and wrong values; exit code 2."""
    file = written(tmp_path, '[http]\nprot = 1\n[mqqt]\nport = 2\n[coap]\nport = "x"\n[tls]\ncertificate = "a"\n')
    code, said = console.refused("config", "check", "--config", file)
    assert code == 2
    for part in ("did you mean 'port'?", "did you mean 'mqtt'?", "[coap] port", "private_key: is missing"):
        assert part in said


def test_values_that_clash_are_said(console: Console, tmp_path: Path) -> None:
    """Two listeners on one port, files that are not there; each value alone would be fine."""
    file = written(tmp_path, '[http]\nport = 1883\n[tls]\ncertificate = "a.pem"\nprivate_key = "a.key"\n')
    result = console.run("config", "check", "--config", file, "--json")
    assert result.exit_code == 2
    assert "[mqtt] port: port 1883 is that of [http] port, too" in result.stdout
    assert result.stdout.count("there is no file a.") == 2
    assert "is right" in console.out("config", "check", "--http-port", "0", "--mqtt-port", "0")
    console.environment["CLOUD_CORE__DATABASE__KEY"] = "no key at all"
    code, said = console.refused("config", "check")
    assert (code, "64 hexadecimal digits" in said, "no key at all" in said) == (2, True, False)


def test_effective_values_are_shown_with_their_source(console: Console, tmp_path: Path) -> None:
    """Default, file, environment, command line; passwords and keys hidden unless revealed."""
    file = written(tmp_path, f'[http]\nport = 8081\nbind = "::1"\n[admin]\npassword = "{SECRET}"\n')
    console.environment |= {
        "CLOUD_CORE__MQTT__PORT": "1884", "CLOUD_CORE__DATABASE__KEY": SECRET,
        "CLOUD_CORE__DATABASE__URL": f"postgresql+psycopg://u:{SECRET}@h/d?sslpassword={SECRET}",
        "CLOUD_CORE__ADMIN__SYSTEM_USERNAME": "sys@x", "CLOUD_CORE__ADMIN__SYSTEM_PASSWORD": SECRET,
        "CLOUD_CORE__METRICS__TOKEN": SECRET,
    }  # fmt: skip
    arguments = ("config", "show", "--config", file, "--http-port", "8082")
    rows = {(one["section"], one["key"]): one for one in console.json(*arguments)}
    assert rows["http", "port"]["source"] == "command line" and rows["http", "port"]["value"] == 8082
    assert rows["http", "bind"]["source"] == file
    assert rows["mqtt", "port"] == {"section": "mqtt", "key": "port", "value": 1884, "source": "CLOUD_CORE__MQTT__PORT"}
    assert rows["coap", "port"]["source"] == "default"
    for shown in (console.out(*arguments), console.run(*arguments, "--json").output):
        assert SECRET not in shown
    assert console.out(*arguments, "--reveal").count(SECRET) == 6
    assert "[coap]" not in console.out(*arguments, "--changed")


# -- doctor ---------------------------------------------------------------------------------------


def findings(console: Console, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = console.run("doctor", *arguments, "--json")
    import json

    return result.exit_code, {one["topic"]: one for one in json.loads(result.stdout)["findings"]}


def ports(core: CoreProcess) -> tuple[str, ...]:
    return ("--http-port", str(core.http_port), "--mqtt-port", str(core.mqtt_port), "--coap-port", str(core.coap_port))


def test_a_running_core_is_well(core: CoreProcess, console: Console) -> None:
    """Its own ports are no trouble; the database opens with its key; it answers."""
    code, found = findings(console, "--data-dir", str(core.data_dir), *ports(core))
    assert code == 0, found
    assert found[f"tcp {core.http_port}"]["text"].startswith("held by the running core")
    assert found[f"udp {core.coap_port}"]["verdict"] == "ok"
    assert f"step {NEWEST}" in found["database"]["text"] and "1 devices" in found["database"]["text"]
    assert "answers at http://127.0.0.1" in found["core"]["text"]
    assert "→" in console.out("doctor", "--data-dir", str(core.data_dir), *ports(core))


def test_a_first_start_is_well_too(console: Console, tmp_path: Path) -> None:
    """Nothing is there yet, and nothing is made."""
    code, found = findings(console, "--data-dir", "none", "--http-port", "0", "--mqtt-port", "0", "--coap-port", "0")
    assert code == 0 and not (tmp_path / "none").exists()
    assert {found[one]["verdict"] for one in ("data directory", "master key", "database", "core")} == {"hint"}


def test_a_taken_port_names_its_holder(console: Console) -> None:
    """This very process, by number."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, found = findings(console, "--http-port", str(port))
    assert code == 1
    assert f"(process {os.getpid()})" in found[f"tcp {port}"]["text"] and found[f"tcp {port}"]["fix"]


def test_what_is_broken_is_said_with_the_fix(core: CoreProcess, console: Console, tmp_path: Path) -> None:
    """Rights of the directory, a wrong or lost master key, a newer or damaged database."""
    data = tmp_path / "copy"
    data.mkdir(mode=0o700)
    console.out("backup", "--data-dir", str(core.data_dir), "--out", str(data / "muster.db"))
    free = ("--data-dir", str(data), "--http-port", "0", "--mqtt-port", "0", "--coap-port", "0")

    code, found = findings(console, *free)
    assert (code, found["master key"]["verdict"]) == (1, "wrong")
    (data / "master.key").write_text("00" * 32)
    (data / "master.key").chmod(0o640)
    code, found = findings(console, *free)
    assert "chmod 600" in found["master key"]["fix"] and "another master key" in found["database"]["text"]
    shutil.copy(core.data_dir / "master.key", data / "master.key")
    (data / "master.key").chmod(0o600)
    assert findings(console, *free)[0] == 0
    data.chmod(0o777)
    assert "chmod 700" in findings(console, *free)[1]["data directory"]["fix"]
    data.chmod(0o700)
    (data / "muster.db").write_bytes(b"no database" * 1000)
    code, found = findings(console, *free)
    assert (code, found["database"]["verdict"]) == (1, "wrong")


def test_a_database_that_cannot_be_reached_shows_no_password(console: Console) -> None:
    """PostgreSQL that is not there: one line, without what the address holds of secrets."""
    url = f"postgresql+psycopg://u:{SECRET}@127.0.0.1:1/d"
    result = console.run("doctor", "--database-url", url)
    assert result.exit_code == 1
    assert "PostgreSQL does not let us in" in result.output and SECRET not in result.output


def test_a_fabric_is_looked_at(console: Console, postgresql: Callable[[], str], nats_server: NatsServer) -> None:
    """Well where NATS lets us in at all of its addresses; what does not is named with the fix, without a password."""
    options = ("doctor", "--database-url", postgresql(), "--fabric")
    said = console.run(*options, nats_server.url).stdout
    assert f"NATS lets us in at {nats_server.url}" in said
    dead = f"nats://user:{SECRET}@127.0.0.1:{free_port()}"
    said = console.run(*options, f"{dead},{nats_server.url}").stdout
    assert "one of its servers does for the others, but nats://127.0.0.1" in said and SECRET not in said
    result = console.run(*options, dead)
    assert "NATS does not let us in at nats://127.0.0.1" in result.stdout and SECRET not in result.output
    assert "start nats-server there (apt install nats-server)" in result.stdout


def test_the_login_of_a_fabric_is_hidden(console: Console) -> None:
    """Of each address; host and port stay."""
    fabric = f"nats://user:{SECRET}@a:4222, tls://{SECRET}@b"
    options = ("config", "show", "--changed", "--fabric", fabric, "--database-url", "postgresql+psycopg://h/d")
    said = console.run(*options).stdout
    assert SECRET not in said and "user" not in said and "@a:4222, tls://" in said
    assert SECRET in console.run(*options, "--reveal").stdout


def test_a_reachable_postgresql_is_well(console: Console, postgresql: Callable[[], str]) -> None:
    """An empty one is filled by the first start."""
    found = findings(console, "--database-url", postgresql(), "--http-port", "0", "--mqtt-port", "0")[1]
    assert "is empty" in found["database"]["text"]
    assert console.json("migrate", "--dry-run", "--database-url", postgresql()) == {
        "dryRun": True, "from": None, "to": NEWEST,
    }  # fmt: skip


def test_certificates_are_looked_at(console: Console, tmp_path: Path) -> None:
    """Files that are no certificate; a development certificate that is not made yet."""
    (tmp_path / "a.pem").write_text("nothing")
    file = written(tmp_path, '[tls]\ncertificate = "a.pem"\nprivate_key = "a.pem"\n')
    code, found = findings(console, "--config", file)
    assert (code, found["TLS"]["verdict"]) == (1, "wrong")
    assert findings(console, "--dev-tls")[1]["TLS"]["verdict"] == "hint"
    assert not (tmp_path / "data").exists()


# -- backup ---------------------------------------------------------------------------------------


def test_a_backup_of_a_running_core_is_whole(core: CoreProcess, console: Console, tmp_path: Path) -> None:
    """0600, with nothing readable in it, verified; a core starts on it with the key."""
    where = ("--data-dir", str(core.data_dir))
    assert "Would copy" in console.out("backup", *where, "--out", "b.db", "--dry-run")
    assert list(tmp_path.iterdir()) == []
    made = console.json("backup", *where, "--out", "b.db", "--with-key")
    assert (made["ok"], made["keyFits"], made["devices"], made["step"]) == (True, True, 1, NEWEST)
    for name in ("b.db", "b.db.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b.db", "b.db.key"]
    assert b"the-token" not in (tmp_path / "b.db").read_bytes()
    assert "The master key fits" in console.out("backup", "--verify", "b.db")

    restored = tmp_path / "restored"
    restored.mkdir(mode=0o700)
    shutil.copy("b.db", restored / "muster.db")
    shutil.copy("b.db.key", restored / "master.key")
    other = CoreProcess(restored).start()
    try:
        assert other.device("SN-1")["name"] == "SN-1"
    finally:
        other.stop()


def test_a_backup_overwrites_nothing(core: CoreProcess, console: Console, tmp_path: Path) -> None:
    """Neither a file of its name, nor one of the key's; nor does it make folders."""
    where = ("--data-dir", str(core.data_dir))
    (tmp_path / "b.db").write_text("mine")
    assert console.refused("backup", *where, "--out", "b.db")[0] == 7
    assert (tmp_path / "b.db").read_text() == "mine"
    (tmp_path / "c.db.key").write_text("mine")
    assert console.refused("backup", *where, "--out", "c.db", "--with-key")[0] == 7
    assert not (tmp_path / "c.db").exists()
    assert console.refused("backup", *where, "--out", "no/where.db")[0] == 7
    assert console.refused("backup", *where)[0] == 2
    assert console.refused("backup", "--data-dir", "none", "--out", "d.db")[0] == 3


def test_a_backup_goes_onto_a_disk_without_hard_links(
    core: CoreProcess, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those for every computer are made (FAT, exFAT); nothing is overwritten there either."""

    def link(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted", "f.db")

    monkeypatch.setattr(os, "link", link)
    console.out("backup", "--data-dir", str(core.data_dir), "--out", "f.db")
    assert console.run("backup", "--verify", "f.db", "--data-dir", str(core.data_dir)).exit_code == 0
    assert console.refused("backup", "--data-dir", str(core.data_dir), "--out", "f.db")[0] == 7
    assert sorted(one.name for one in tmp_path.iterdir()) == ["f.db"]


def test_a_damaged_backup_is_found(core: CoreProcess, console: Console, tmp_path: Path) -> None:
    """Exit code 1; a file that is none is 7, and a key that does not fit is said."""
    console.out("backup", "--data-dir", str(core.data_dir), "--out", "b.db")
    (tmp_path / "b.db.key").write_text("11" * 32)
    assert "does not fit" in console.refused("backup", "--verify", "b.db")[1]
    content = bytearray((tmp_path / "b.db").read_bytes())
    content[5_000:60_000] = b"\xff" * 55_000
    (tmp_path / "b.db").write_bytes(content)
    (tmp_path / "b.db.key").unlink()
    code, said = console.refused("backup", "--verify", "b.db")
    assert (code, "is damaged" in said) == (1, True)
    assert console.refused("backup", "--verify", "none.db")[0] == 7


def test_postgresql_is_backed_up_by_its_own_tool(console: Console) -> None:
    """The exact command, without the password."""
    url = f"postgresql+psycopg://muster:{SECRET}@db.example:5433/fleet"
    code, said = console.refused("backup", "--out", "b.dump", "--database-url", url)
    assert code == 2 and SECRET not in said
    wanted = "pg_dump --format=custom --file=b.dump --host=db.example --port=5433 --username=muster --dbname=fleet"
    assert wanted in said


def test_migration_says_what_it_would_do(core: CoreProcess, console: Console) -> None:
    """On a database that is up to date nothing."""
    assert "already at step" in console.out("migrate", "--data-dir", str(core.data_dir))
    assert console.json("migrate", "--dry-run", "--data-dir", "none")["from"] is None
    assert not Path("none").exists()
