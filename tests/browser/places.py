"""Every page of the web UI, found by its route, and where an example of it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cloud_core.transports.http.ui import routes  # the class below knows its sub-classes once they are loaded
from cloud_core.transports.http.ui.pages import Pages
from tests.browser.fleet import OPERATOR, Fleet

NOT_PAGES = (
    "/ui/events", "/ui/overview/live", "/ui/provisioning/live", "/ui/provisioning/storm/live", "/ui/devices/export",
    "/ui/imports/example.csv", "/ui/imports/<uuid>/errors.csv", "/ui/imports/<uuid>/errors.ndjson",
)  # fmt: skip
"""Streams, parts of pages, and files."""

FOR_NOBODY_YET = ("/ui/login",)
FOR_SYSTEM_ADMINISTRATORS = ("/ui/tenants", "/ui/tenants/<uuid>")
"""Tested where they are made: a tenant is needed."""

_WHOSE: dict[str, Callable[[Fleet], str]] = {
    "/ui/devices/": lambda fleet: fleet.ids["device"],
    "/ui/gateways/": lambda fleet: fleet.ids["gateway"],
    "/ui/profiles/": lambda fleet: fleet.ids["water-meter"],
    "/ui/imports/": lambda fleet: fleet.ids["import"],
    "/ui/customers/": lambda fleet: fleet.ids["customer"],
    "/ui/users/": lambda fleet: fleet.ids[OPERATOR],
    "/ui/certificates/": lambda fleet: fleet.ids["certificate"],
}
_MORE = {"key": lambda fleet: fleet.ids["key"], "ref": lambda fleet: fleet.ids["reference"]}


def _classes(of: type[Pages] = Pages) -> Iterator[type[Pages]]:
    for one in of.__subclasses__():
        yield one
        yield from _classes(one)


def _rules() -> list[str]:
    found = {
        rule.rule for one in _classes() if one is not routes.UiRoutes and hasattr(one, "app")
        for rule in one.app.url_map.iter_rules() if rule.methods and "GET" in rule.methods
    }  # fmt: skip
    found = {rule for rule in found if "<any(" not in rule and "<_" not in rule}  # ways back from a form's answer
    return sorted(found - set(NOT_PAGES) - set(FOR_NOBODY_YET) - set(FOR_SYSTEM_ADMINISTRATORS))


RULES = _rules()


def address(rule: str, fleet: Fleet) -> str:
    """Of an example of this page."""
    made = rule
    for beginning, whose in _WHOSE.items():
        if rule.startswith(f"{beginning}<"):
            end = rule.index(">") + 1
            made = beginning + whose(fleet) + rule[end:]
    for name, whose in _MORE.items():
        made = made.replace(f"<{name}>", whose(fleet)) if f"<{name}>" in made else made
    assert "<" not in made, f"tell in _WHOSE or _MORE where an example of {rule} is"
    return made


def name_of(rule: str) -> str:
    """For pictures: `/ui/devices/<uuid>/telemetry` is `devices-uuid-telemetry`."""
    return rule.removeprefix("/ui/").replace("<", "").replace(">", "").replace("/", "-") or "overview"
