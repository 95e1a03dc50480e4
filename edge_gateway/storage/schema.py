"""The spool's tables and its fixed statements as SQLite executes them; `tables.py` writes this file."""

from __future__ import annotations

import sqlite3

VERSION = 1
PAGE_BYTES = 4096

# In the order of their root pages.
TABLES = (
    """CREATE TABLE record ( number INTEGER NOT NULL, device TEXT NOT NULL, content INTEGER NOT NULL
CHECK (content IN (0, 1)), lane INTEGER NOT NULL CHECK (lane IN (0, 1)), ts_ms INTEGER NOT
NULL, boot INTEGER NOT NULL, elapsed_ms INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY
(number) ) STRICT""",
    """CREATE TABLE sub_device ( name TEXT NOT NULL, upstream_name TEXT NOT NULL, type TEXT NOT NULL,
connector TEXT NOT NULL, last_seen_ms INTEGER NOT NULL, is_deleted INTEGER NOT NULL, PRIMARY
KEY (name) ) STRICT""",
    """CREATE TABLE boot ( number INTEGER NOT NULL, machine_start TEXT NOT NULL, known_ms INTEGER NOT
NULL, PRIMARY KEY (number) ) STRICT""",
    """CREATE TABLE state ( name TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (name) ) STRICT""",
    """CREATE TABLE dropped ( reason TEXT NOT NULL, device TEXT NOT NULL, readings INTEGER NOT NULL,
PRIMARY KEY (reason, device) ) STRICT""",
)

# Parameters in the order of the text. Plain SQL on tuples is what the hot path executes.
APPEND = """INSERT INTO record (number, device, content, lane, ts_ms, boot, elapsed_ms, body) VALUES (?, ?,
?, ?, ?, ?, ?, ?)"""
FORGET = """DELETE FROM record WHERE record.number BETWEEN ? AND ?"""
HISTORY = """SELECT record.number, record.device, record.content, record.lane, record.ts_ms, record.boot,
record.elapsed_ms, record.body FROM record WHERE record.number > ? AND (record.number < ? OR
record.lane = 1) ORDER BY record.number LIMIT ?"""
RECORDS = """SELECT record.number, record.device, record.content, record.lane, record.ts_ms, record.boot,
record.elapsed_ms, record.body FROM record WHERE record.number BETWEEN ? AND ? ORDER BY
record.number LIMIT ?"""
RECORDS_DOWN = """SELECT record.number, record.device, record.content, record.lane, record.ts_ms, record.boot,
record.elapsed_ms, record.body FROM record WHERE record.number BETWEEN ? AND ? ORDER BY
record.number DESC LIMIT ?"""
OLDEST = """SELECT record.number, record.device, record.boot, record.elapsed_ms, length(record.body) AS
length_1 FROM record WHERE record.number >= ? ORDER BY record.number LIMIT ?"""
OLDEST_TELEMETRY = """SELECT record.number, record.device, record.boot, record.elapsed_ms, length(record.body) AS
length_1 FROM record WHERE record.number >= ? AND record.content = 0 ORDER BY record.number
LIMIT ?"""
KEEP = """INSERT INTO record (number, device, content, lane, ts_ms, boot, elapsed_ms, body) VALUES (?, ?,
?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
EXTENT = """SELECT count(*) AS count_1, min(record.number) AS min_1, max(record.number) AS max_1 FROM
record"""
BELOW = """SELECT max(record.number) AS max_1 FROM record WHERE record.number < ?"""
ABOVE = """SELECT min(record.number) AS min_1 FROM record WHERE record.number > ?"""
COUNT_BETWEEN = """SELECT count(*) AS count_1 FROM record WHERE record.number BETWEEN ? AND ?"""
USED_BOOTS = """SELECT DISTINCT record.boot FROM record"""
COUNTS = """SELECT record.device, record.boot, count(*) AS count_1, max(record.elapsed_ms) AS max_1 FROM
record GROUP BY record.device, record.boot"""
NEWEST = """SELECT max(record.number) AS max_1 FROM record"""
OLDEST_INSTANT = """SELECT record.boot, record.elapsed_ms FROM record ORDER BY record.number LIMIT ?"""
PUT_DEVICE = """INSERT INTO sub_device (name, upstream_name, type, connector, last_seen_ms, is_deleted) VALUES
(?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET upstream_name = excluded.upstream_name,
type = excluded.type, connector = excluded.connector, last_seen_ms = excluded.last_seen_ms,
is_deleted = excluded.is_deleted"""
DEVICES = """SELECT sub_device.name, sub_device.upstream_name, sub_device.type, sub_device.connector,
sub_device.last_seen_ms, sub_device.is_deleted FROM sub_device"""
PUT_BOOT = """INSERT INTO boot (number, machine_start, known_ms) VALUES (?, ?, ?) ON CONFLICT (number) DO
UPDATE SET known_ms = excluded.known_ms"""
ADD_BOOT = """INSERT INTO boot (number, machine_start, known_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"""
BOOTS = """SELECT boot.number, boot.machine_start, boot.known_ms FROM boot"""
FORGET_BOOT = """DELETE FROM boot WHERE boot.number = ?"""
PUT_STATE = """INSERT INTO state (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value =
excluded.value"""
STATE = """SELECT state.name, state.value FROM state"""
COUNT_DROPPED = """INSERT INTO dropped (reason, device, readings) VALUES (?, ?, ?) ON CONFLICT (reason, device) DO
UPDATE SET readings = (dropped.readings + excluded.readings)"""
DROPPED = """SELECT dropped.reason, dropped.device, dropped.readings FROM dropped"""


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty file."""
    connection.execute("BEGIN IMMEDIATE")
    for table in TABLES:
        connection.execute(table)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
