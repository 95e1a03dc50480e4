"""The overview and the line view: what they show, to whom, and at what price."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_core.core import overview
from cloud_core.core.overview import Counted, Funnel
from cloud_core.core.system_view import Connection, System, SystemView
from cloud_core.core.traffic import Rates, Tally
from cloud_core.measures import counter, gauge, one
from cloud_core.model import UserRole
from cloud_core.storage.interface.overview import Waiting
from cloud_core.transports.http.ui.outcomes import said, stage_text
from cloud_core.transports.http.ui.overview_pages import refusals_of, stages_of
from cloud_core.transports.http.ui.rate_chart import ceiling, rate_chart, share
from cloud_core.transports.http.ui.rendering import Templates, in_bytes
from cloud_core.transports.http.ui.storm_pages import light
from tests.support.rest import without_threads
from tests.support.stores import StoreUnderTest
from tests.support.ui_ops import Plant

NOW_MS = 10**12
FINE = System(reasons=(), connections=[])


@pytest.fixture
def plant(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    without_threads(monkeypatch)
    plant = Plant(sqlite_store)
    plant.browser.api.api.health.checks = []
    yield plant
    plant.browser.close()


def test_a_new_installation_shows_three_steps(plant: Plant) -> None:
    """Make a profile, connect a device, watch; they go when the first device has asked."""
    shown = plant.browser.open("/ui/")
    assert shown.status == 200 and "Three steps" in shown.words and 'href="/ui/profiles/new"' in shown.text
    plant.ask("d")
    plant.later(10)
    assert "Three steps" not in plant.browser.open("/ui/overview/live").words
    plant.as_role(UserRole.VIEWER)


def test_a_viewer_is_not_offered_what_only_administrators_may(plant: Plant) -> None:
    """The steps name who does it instead; nothing to decide is offered either."""
    plant.ask("l", "lock")
    shown = plant.as_role(UserRole.VIEWER).open("/ui/")
    assert "/ui/profiles/new" not in shown.text and "/ui/provisioning/pending" not in shown.text
    assert "1 request, the oldest" in shown.words


@pytest.mark.parametrize("path", ["/ui/overview/live", "/ui/provisioning/storm/live"])
def test_who_waits_is_shown_with_the_event_that_tells_of_it(plant: Plant, path: str) -> None:
    """However fresh what was shown before is: the page asks a moment behind the event, and not again for seconds."""
    assert "the oldest" not in plant.browser.open(path).words.lower()
    plant.ask("l", "lock")
    plant.later(0.2)
    assert "oldest" in plant.browser.open(path).words.lower()
    waiting = re.search(r'name="one" value="([^"]+)"', plant.browser.open("/ui/provisioning/pending").text)
    assert waiting is not None
    plant.browser.submit("/ui/provisioning/pending/decide", {"accept": waiting[1]})
    plant.later(0.2)
    assert "oldest" not in plant.browser.open(path).words.lower()


def test_many_who_come_at_once_are_not_counted_for_each(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of requests leaves the readers to others."""
    counts: list[int] = []
    real = overview._waiting
    monkeypatch.setattr(overview, "_waiting", lambda tx, tenant: counts.append(1) or real(tx, tenant))
    for number in range(5):
        plant.ask(f"l{number}", "lock")
        plant.browser.open("/ui/overview/live")
    assert len(counts) == 1


def test_the_overview_counts_devices_and_requests(plant: Plant) -> None:
    """The funnel, the rate, refusals with their attempts, and who waits."""
    plant.ask("a")
    plant.ask("b")
    plant.ask("a", provision_secret="wrong")
    plant.ask("l", "lock")
    shown = plant.browser.open("/ui/")
    assert "Created 2" in shown.words and "Issued 2" in shown.words and "Confirmed 0" in shown.words
    assert "2 granted, 1 waiting, 1 refused" in shown.text
    assert "Wrong key or secret 1" in shown.words and "outcome=INVALID_PROVISION_CREDENTIALS&amp;startTs=" in shown.text
    assert "1 request, the oldest came" in shown.words and 'href="/ui/provisioning/pending"' in shown.text


def test_the_overview_can_be_of_one_profile(plant: Plant) -> None:
    """One that the tenant has; anything else counts as all."""
    plant.ask("a")
    lock = plant.uuids["lock"]
    assert "Created 0" in plant.browser.open(f"/ui/?profile={lock}").words
    assert f"/ui/overview/live?profile={lock}" in plant.browser.open(f"/ui/?profile={lock}").text
    assert "Created 1" in plant.browser.open("/ui/?profile=%3Cscript%3E").words


def test_the_live_part_is_rendered_once_for_all_who_see_the_same(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages are open; after two seconds it is made anew."""
    first = plant.browser.open("/ui/overview/live")
    rendered: list[str] = []
    render = Templates.render
    monkeypatch.setattr(
        Templates, "render", lambda self, name, **rest: (rendered.append(name), render(self, name, **rest))[1]
    )
    for _ in range(20):
        assert plant.browser.open("/ui/overview/live").text == first.text
    assert rendered == []
    plant.later(2)
    plant.browser.open("/ui/overview/live")
    assert rendered == ["overview_live.html"]


def test_only_who_may_read_sees_the_live_parts(plant: Plant) -> None:
    """A customer's user is led away from the overview and refused its parts."""
    browser = plant.as_customer_user()
    assert browser.open("/ui/").location == "/ui/devices"
    for path in ("/ui/overview/live", "/ui/provisioning/storm", "/ui/provisioning/storm/live"):
        assert browser.open(path).status == 403


def test_what_is_wrong_with_the_core_is_told_in_a_sentence(plant: Plant) -> None:
    """The word that load balancers get is explained."""
    plant.browser.api.api.health.checks = [lambda: "STORE_UNAVAILABLE"]
    assert "database refuses writes" in plant.browser.open("/ui/").words
    assert "Stopped" in plant.browser.open("/ui/provisioning/storm").words


def test_the_line_view_shows_sources_and_reasons(plant: Plant) -> None:
    """The most frequent first, each leading to its attempts."""
    for number in range(3):
        plant.ask(f"d{number}", source="192.0.2.9")
    plant.ask("x", provision_secret="wrong", source="192.0.2.8")
    shown = plant.browser.open("/ui/provisioning/storm")
    assert "Look" in shown.words and "192.0.2.9 3" in shown.words and "192.0.2.8 1" in shown.words
    assert "Wrong key or secret 1" in shown.words and 'href="/ui/provisioning?q=192.0.2.9"' in shown.text


def test_the_navigation_says_how_many_wait(plant: Plant) -> None:
    """For those who may decide, on every page."""
    plant.ask("l", "lock")
    plant.browser.open("/ui/")
    assert "Provisioning 1 waiting for approval" in plant.browser.open("/ui/account").words
    assert "waiting for approval" not in plant.as_role(UserRole.VIEWER).open("/ui/account").words


# -- pure -----------------------------------------------------------------------------------------


def rates(granted: int = 0, refused: int = 0, waiting: int = 0) -> Rates:
    recent = Tally(granted=granted, waiting=waiting)
    recent.refused["DEVICE_EXISTS"] = refused
    return Rates([], recent, 0.0)


@pytest.mark.parametrize(
    ("seen", "waiting", "system", "kind"),
    [
        (rates(), Waiting(), FINE, "idle"),
        (rates(granted=100, refused=5), Waiting(), FINE, "good"),
        (rates(granted=100, refused=20), Waiting(), FINE, "warn"),
        (rates(granted=10, refused=20), Waiting(), FINE, "bad"),
        (rates(granted=10), Waiting(3, NOW_MS - 1_000), FINE, "good"),
        (rates(granted=10), Waiting(3, NOW_MS - 700_000), FINE, "warn"),
        (rates(waiting=5), Waiting(5, NOW_MS), FINE, "good"),
        (rates(granted=10), Waiting(), System(reasons=("DRAINING",), connections=[]), "bad"),
        (rates(granted=10), Waiting(), System(reasons=(), connections=[], is_congested=True), "bad"),
    ],
)
def test_the_light_of_the_line(seen: Rates, waiting: Waiting, system: System, kind: str) -> None:
    """Red where the core or most devices fail, yellow where somebody has to look, green where devices come in."""
    shown = light(seen, system, waiting, NOW_MS)
    assert shown.kind == kind and shown.word and shown.fix


def test_bars_are_as_high_as_their_numbers() -> None:
    """Stacked to the sum, within the frame, and with a label for those who cannot see them."""
    tally = Tally(granted=5, waiting=3)
    tally.refused["X"] = 2
    chart = rate_chart([Tally(), tally], "a <label>")
    assert 'aria-label="a &lt;label&gt;"' in chart and chart.count("<rect") == 3
    heights = [float(part.split('"')[0]) for part in chart.split('height="')[1:]]
    assert sum(heights) == pytest.approx(118, abs=1)
    assert "style=" not in chart


@pytest.mark.parametrize(("most", "top"), [(0, 5), (5, 5), (6, 10), (10, 10), (11, 20), (21, 50), (501, 1000)])
def test_the_top_of_the_axis_is_round(most: int, top: int) -> None:
    """And never below the highest bar."""
    assert ceiling(most) == top


def test_shares_stay_within_their_bar() -> None:
    """Nothing of nothing is nothing, more than all is all."""
    assert 'width="0"' in share(0, 0) and 'width="100.0"' in share(9, 3) and 'width="50.0"' in share(1, 2)


def test_sizes_read_as_people_say_them() -> None:
    """Three figures at most."""
    assert [in_bytes(one) for one in (0, 1023, 1536, 150 * 2**20, 2**41)] == [
        "0 B", "1023 B", "1.5 KiB", "150 MiB", "2.0 TiB"
    ]  # fmt: skip


def test_refusals_lead_to_their_attempts() -> None:
    """Requests that merely wait are none; the most frequent first."""
    counted = Counted(NOW_MS, [], {"APPROVAL_PENDING": 9, "DEVICE_EXISTS": 1, "QUOTA_EXCEEDED": 4})
    found = refusals_of(counted, NOW_MS)
    assert [one.times for one in found] == [4, 1]
    assert found[0].url == f"/ui/provisioning?outcome=QUOTA_EXCEEDED&startTs={NOW_MS - 86_400_000}"


def test_stages_have_shares_of_all() -> None:
    """None where there are no devices."""
    assert [one.percent for one in stages_of(Funnel(200, 100, 50, 20, 10, 1))] == [100, 50, 25, 10, 5, 0]
    assert {one.percent for one in stages_of(Funnel(0, 0, 0, 0, 0, 0))} == {0}


def test_unknown_words_are_shown_as_they_are() -> None:
    """A log of a newer program is still readable."""
    assert said("NEW_REASON").text == "NEW_REASON" and stage_text("new") == "new"


def test_the_numbers_of_the_parts_are_put_together(plant: Plant) -> None:
    """From what they tell the scraper; processor time is the share since the look before."""
    spent, now_ms = [10.0], [1_000_000]
    metrics: Any = plant.browser.api.api.metrics
    metrics.sources.append(
        lambda: [
            gauge("mqtt_connections", "", one(7)), gauge("store_queue_units", "", one(3)),
            counter("process_cpu_seconds_total", "", one(spent[0])),
        ]
    )  # fmt: skip
    view = SystemView(metrics=metrics, health=plant.browser.api.api.health, now_ms=lambda: now_ms[0])
    assert view.now().connections == [Connection("MQTT connections", 7)] and view.now().cpu_share is None
    spent[0], now_ms[0] = 11.0, 1_004_000
    assert view.now().cpu_share == 0.25 and view.now().queued == 3
