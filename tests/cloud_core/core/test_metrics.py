"""What is counted, and how it is shown."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from cloud_core.core.metrics import Metrics, Taken
from cloud_core.measures import Histogram, gauge, histogram, rendered
from cloud_core.model import Transport
from cloud_core.process_metrics import ProcessMetrics, open_descriptors, resident_bytes
from shared.errors import NotAuthenticated
from tests.support.metrics import parsed


def test_a_histogram_counts_each_value_in_every_bucket_that_holds_it() -> None:
    """Buckets are cumulative, a bound belongs to its bucket, and what is above all bounds is in +Inf."""
    seen = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        seen.observe(value)
    text = rendered([histogram("h", "t", [({"a": "b"}, seen)])])
    assert parsed(text) == {
        ("muster_h_bucket", (("a", "b"), ("le", "1"))): 2,
        ("muster_h_bucket", (("a", "b"), ("le", "2"))): 3,
        ("muster_h_bucket", (("a", "b"), ("le", "+Inf"))): 4,
        ("muster_h_sum", (("a", "b"),)): 12.0,
        ("muster_h_count", (("a", "b"),)): 4,
    }


def test_label_values_are_escaped() -> None:
    """Quotes, backslashes and line ends cannot break the format."""
    text = rendered([gauge("g", "t", [({"l": 'a"b\\c\nd'}, 1)])])
    assert text.splitlines()[2] == 'muster_g{l="a\\"b\\\\c\\nd"} 1'


def test_attempts_and_logins_are_counted_by_transport_and_outcome() -> None:
    """A refusal counts under its reason, a success under SUCCESS."""
    metrics = Metrics()
    metrics.provisioned(Transport.COAP, "stored", "SUCCESS", 0.004)
    metrics.login(Transport.MQTT, NotAuthenticated())
    metrics.login(Transport.MQTT, object())
    found = parsed(metrics.text())
    attempt = (("outcome", "SUCCESS"), ("stage", "stored"), ("transport", "coap"))
    assert found["muster_provision_attempts_total", attempt] == 1
    assert found["muster_provision_seconds_bucket", (("le", "0.005"), ("transport", "coap"))] == 1
    assert found["muster_logins_total", (("outcome", "NOT_AUTHENTICATED"), ("transport", "mqtt"))] == 1
    assert found["muster_logins_total", (("outcome", "SUCCESS"), ("transport", "mqtt"))] == 1


def test_a_message_is_counted_by_one_addition() -> None:
    """Counting a message costs well below a microsecond, whatever else the machine does."""
    taken, best_s = Taken(), float("inf")
    for _ in range(20):
        began_s = perf_counter()
        for _ in range(1_000):
            taken.telemetry += 1
        best_s = min(best_s, perf_counter() - began_s)
    assert taken.telemetry == 20_000
    assert best_s / 1_000 < 0.5e-6


def test_the_process_tells_its_own_numbers() -> None:
    """Memory and descriptors are those that the system shows."""
    assert resident_bytes() > 10_000_000
    before = open_descriptors()
    with Path("/proc/self/statm").open():
        assert open_descriptors() >= before
    names = {family.full_name for family in ProcessMetrics().families()}
    assert {"muster_build_info", "muster_process_resident_memory_bytes", "muster_process_open_fds"} <= names
