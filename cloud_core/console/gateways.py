"""`gateway list` and `gateway show`: what is behind each, and whether the links are up."""

from __future__ import annotations

from typing import Any

import click

from cloud_core.console.calls import call, common, connect, device_named, id_of
from cloud_core.console.exits import POINTER
from cloud_core.console.output import ago, at, cut, fitted, show, show_json, terminal_columns, text_of
from cloud_core.rest_client import RestClient

MAX_LEVELS = 4  # gateways behind gateways


@click.group(epilog=POINTER)
def gateway() -> None:
    """Gateways and the devices behind them."""


@gateway.command("list")
@click.option("--search", default="", help="Part of a name, label or type.")
@click.option("--limit", default=100, show_default=True, help="So many at most.")
@common
def gateway_list(search: str, limit: int, url: str | None, as_json: bool) -> None:
    """List gateways with their link and how many devices speak behind each."""
    client = connect(url)
    query = {"pageSize": limit, "page": 0, "textSearch": search, "sortProperty": "name"}
    page = call(lambda: client.get("/api/gateways", **query))
    if as_json:
        show_json(page["data"])
        return
    rows = [one | {"link": link_of(one), "behind": _behind(one), "seen": ago(one["lastActivityTime"])}
            for one in page["data"]]  # fmt: skip
    columns = {"NAME": "name", "LINK": "link", "ACTIVE BEHIND": "behind", "LAST ACTIVITY": "seen", "LABEL": "label"}
    show(rows, columns, as_json=False)
    if page["hasNext"]:
        click.echo(f"… {page['totalElements'] - len(page['data'])} more; raise --limit or use --search.")


@gateway.command("show")
@click.argument("name")
@click.option("--limit", default=200, show_default=True, help="So many sub-devices of each gateway at most.")
@common
def gateway_show(name: str, limit: int, url: str | None, as_json: bool) -> None:
    """Show one gateway as a tree: each device behind it, its link, and when it spoke last."""
    client = connect(url)
    found = call(lambda: device_named(client, name))
    root = call(lambda: _tree(client, client.get(f"/api/gateway/{id_of(found)}"), limit, MAX_LEVELS))
    if as_json:
        show_json(root)
        return
    width = terminal_columns()
    for line in _lines(root):
        click.echo(cut(line, width) if width else line)
    if root.get("behind"):
        click.echo(f"It is itself behind the gateway '{text_of(root['behind']['name'])}'.")


def _tree(client: RestClient, node: dict[str, Any], limit: int, levels: int) -> dict[str, Any]:
    """The node with `devices` and `more`, how many are left out. Raises: RestError."""
    query = {"pageSize": limit, "page": 0, "sortProperty": "name"}
    page = client.get(f"/api/gateway/{id_of(node)}/devices", **query)
    rows = [
        _tree(client, one, limit, levels - 1) if one["gateway"] and levels > 1 and id_of(one) != id_of(node) else one
        for one in page["data"]
    ]
    return node | {"devices": rows, "more": page["totalElements"] - len(rows)}


def _lines(root: dict[str, Any]) -> list[str]:
    table: list[list[str]] = []
    _draw(root, "", "", table)
    return fitted(table, 0)


def _draw(node: dict[str, Any], own: str, children: str, table: list[list[str]]) -> None:
    seen = node["lastActivityTime"]
    table.append([own + text_of(node["name"]), link_of(node), ago(seen), at(seen), text_of(node["type"])])
    rows = node.get("devices", [])
    more = node.get("more", 0)
    for number, one in enumerate(rows, 1):
        is_last = number == len(rows) and not more
        _draw(one, children + ("└─ " if is_last else "├─ "), children + ("   " if is_last else "│  "), table)
    if more:
        table.append([f"{children}└─ … {more} more; raise --limit", "", "", "", ""])


def link_of(one: dict[str, Any]) -> str:
    if one["lastConnectTime"] is None and one["lastActivityTime"] is None:
        return "never seen"
    state = "connected" if one["connected"] else "away"
    return state if one["active"] else f"{state}, silent"


def _behind(one: dict[str, Any]) -> str:
    return f"{one['activeSubDevices']} of {one['subDevices']}"
