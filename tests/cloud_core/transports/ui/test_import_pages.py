"""Importing devices by the pages: the plan, what comes of it, and who may."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from cloud_core.core.people.logins import Operator
from cloud_core.model import DEFAULT_TENANT, UserRole
from cloud_core.storage.interface.batches import Batch, BatchState
from cloud_core.transports.http.rest.bulk_routes import MAX_FILE_BYTES
from cloud_core.transports.http.ui import import_pages
from cloud_core.transports.http.ui.import_pages import counts_of, doable_of, step_of
from cloud_core.transports.http.ui.uploads import with_pages
from cloud_core.transports.http.ui.visits import MAX_FORM_BYTES
from tests.support.rest import without_threads
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser, Shown, somebody

GOOD = "name,type,label\nSN-1,sensor,one\nSN-2,sensor,\n"
MIXED = GOOD + ",sensor,no name\nSN-1,sensor,again\n"
HOSTILE = '<script>alert("x")</script>'
CUSTOMER_USER = Operator("u@x", "CUSTOMER_USER", TENANT, DEFAULT_TENANT, uuid4(), 1, None)


@pytest.fixture
def browser(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    without_threads(monkeypatch)
    sqlite_store.add_profile("sensor")
    browser = Browser(sqlite_store)
    yield browser
    browser.close()


def planned(browser: Browser, content: str | bytes = GOOD, **options: str) -> str:
    """The address of the plan."""
    sent = browser.upload("/ui/imports/new", content, fields={"update": "yes", "once": uuid4().hex, **options})
    assert sent.status == 303, sent.words
    assert re.fullmatch(r"/ui/imports/[0-9a-f-]{36}", sent.location)
    return sent.location


def ended(browser: Browser, url: str) -> Shown:
    while "data-live-every" in (shown := browser.open(url)).text:
        browser.settle()
    return shown


def names(browser: Browser) -> set[str]:
    return {one for one in ("SN-1", "SN-2") if browser.api.store.read(lambda tx, n=one: tx.device_by_name(TENANT, n))}


def test_a_file_is_planned_applied_and_reported(browser: Browser) -> None:
    """Nothing changes before it is applied; afterwards each row leads to its device."""
    assert "Import a file of devices" in browser.open("/ui/imports").words
    url = planned(browser)
    plan = browser.open(url)
    assert plan.status == 200 and "nothing changed yet" in plan.words and "2 to create" in plan.words
    assert "Apply 2 rows" in plan.words and names(browser) == set()
    assert browser.submit(f"{url}/apply").location == url
    report = ended(browser, url)
    assert "2 created" in report.words and names(browser) == {"SN-1", "SN-2"}
    device = browser.api.store.read(lambda tx: tx.device_by_name(TENANT, "SN-1"))
    assert f'href="/ui/devices/{device.uuid}"' in report.text
    assert "devices.csv" in browser.open("/ui/imports").words


def test_bad_rows_are_named_with_their_line_reason_and_code(browser: Browser) -> None:
    """And can be seen alone, status by status."""
    url = planned(browser, MIXED)
    plan = browser.open(url)
    assert "1 in conflict" in plan.words and "1 with an error" in plan.words
    errors = browser.open(f"{url}?status=ERROR")
    assert "4 without a name error The name is empty; fill in the column 'name' NAME_MISSING" in errors.words
    assert "DUPLICATE_NAME" not in errors.words and "1 in all" in errors.words
    assert "DUPLICATE_NAME" in browser.open(f"{url}?status=conflict").words
    assert "4 in all" in browser.open(f"{url}?status=nonsense").words


def test_the_good_rows_are_applied_alone_where_that_is_said(browser: Browser) -> None:
    """All or nothing refuses a file with a bad row, and says so; its good rows can be applied then."""
    url = planned(browser, MIXED, mode="atomic")
    assert browser.submit(f"{url}/apply").location == url
    refused = browser.open(url)
    assert "refused, nothing changed" in refused.words and names(browser) == set()
    assert browser.submit(f"{url}/apply", {"mode": "partial"}).location == url
    assert "2 created" in ended(browser, url).words


def test_bad_rows_are_downloaded_to_be_corrected(browser: Browser) -> None:
    """As CSV, the reason in the last column; a loaded file may hold credentials, so nobody keeps a copy."""
    url = planned(browser, MIXED)
    file = browser.open(f"{url}/errors.csv")
    assert file.status == 200 and file.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in file.headers["content-disposition"] and file.headers["cache-control"] == "no-store"
    header, first, second = file.text.splitlines()
    assert (header, first.split(",")[:3]) == ("\ufeffname,type,label,error", ["", "sensor", "no name"])
    assert second.startswith("SN-1,sensor,again,")
    assert browser.open("/ui/account").status == 200  # the connection goes on


def test_an_import_is_undone(browser: Browser) -> None:
    """The devices are gone; a second undo is refused in the page."""
    url = planned(browser)
    browser.submit(f"{url}/apply")
    assert 'data-confirm="Delete the 2 devices' in ended(browser, url).text
    assert browser.submit(f"{url}/undo").location == url
    assert "2 undone" in ended(browser, url).words and names(browser) == set()
    again = browser.submit(f"{url}/undo")
    assert again.status == 400 and "can be undone" in again.words


def test_the_same_form_sent_twice_is_one_import(browser: Browser) -> None:
    """By the number that each form carries; another file under it is refused."""
    first = planned(browser, once="form-1")
    assert planned(browser, once="form-1") == first
    other = browser.upload("/ui/imports/new", MIXED, fields={"update": "yes", "once": "form-1"})
    assert other.status == 400 and "another file" in other.words


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("", {}, "The file is empty"),
        ("serial\n1\n", {}, "Unknown column 'serial'"),
        (GOOD, {"encoding": "klingon"}, "Unknown encoding 'klingon'"),
        (GOOD, {"delimiter": "::"}, "single character"),
        (GOOD, {"mode": "sometimes"}, "atomic"),
        (GOOD, {"format": "xls"}, "csv, ndjson or json"),
        (f"{HOSTILE}\n1\n", {}, "Unknown column"),
    ],
)
def test_what_cannot_be_read_is_told_in_the_form(
    browser: Browser, content: str, options: dict[str, str], said: str
) -> None:
    """With what was chosen, and a number for the next attempt; nothing is kept."""
    shown = browser.upload("/ui/imports/new", content, fields={"once": "o", **options})
    assert shown.status == 400 and said in shown.words and HOSTILE not in shown.text
    assert 'name="once" value="o"' not in shown.text
    assert "No import is on record" in browser.open("/ui/imports").words


def test_a_form_without_a_file_asks_for_one(browser: Browser) -> None:
    """As browsers send it when nothing was chosen; and a form that is no multipart."""
    assert "Choose a file first" in browser.upload("/ui/imports/new", "", name="").words
    plain = browser.submit("/ui/imports/new", {"file": "x"})
    assert plain.status == 400 and "multipart/form-data" in plain.words


def test_names_out_of_files_are_no_markup(browser: Browser) -> None:
    """Names of rows, of the file and reasons are shown as they are."""
    content = f'name,type\n"{HOSTILE.replace(chr(34), chr(34) * 2)}",sensor\n'
    sent = browser.upload("/ui/imports/new", content, name="<b>x.csv", fields={"update": "yes"})
    for path in (sent.location, "/ui/imports"):
        text = browser.open(path).text
        assert "<script>alert" not in text and "<b>x" not in text and "&lt;b&gt;x.csv" in text


def test_options_reach_the_import(browser: Browser) -> None:
    """Delimiter, encoding and whether devices that exist are updated."""
    url = planned(browser, "name;type\nSN-1;sensor\n".encode("utf-16"), delimiter=";", encoding="utf-16")
    browser.submit(f"{url}/apply")
    ended(browser, url)
    attributes = "name,server:site\nSN-1,Ulm\n"
    assert "1 to update" in browser.open(planned(browser, attributes)).words
    without = browser.upload("/ui/imports/new", attributes, fields={"once": "u"})
    assert "There is nothing to do" in browser.open(without.location).words


def test_rows_come_in_pages(browser: Browser) -> None:
    """The way to the next part keeps the status that is shown."""
    rows = "".join(f"X-{number:03}\n" for number in range(120))
    url = planned(browser, f"name\n{rows}")
    second = browser.open(f"{url}?status=CREATE&page=2")
    assert "51 to 100 of 120" in second.words and "X-050" in second.words and "X-049" not in second.words
    assert re.search(rf'href="{url}\?status=CREATE[^"]*page=3"', second.text)


@pytest.mark.parametrize("role", [UserRole.ADMINISTRATOR, UserRole.OPERATOR])
def test_who_may_import_finds_the_way(browser: Browser, role: UserRole) -> None:
    """Administrators and operators."""
    browser.log_in_as(somebody(role))
    assert 'href="/ui/imports"' in browser.open("/ui/account").text
    assert browser.open("/ui/imports/new").status == 200 and planned(browser)
    assert browser.open("/ui/imports/example.csv").text.startswith("name,type,label")


@pytest.mark.parametrize("operator", [somebody(UserRole.VIEWER), CUSTOMER_USER])
def test_who_may_not_import_is_refused_everywhere(browser: Browser, operator: Operator) -> None:
    """Viewers and customers' users neither look nor load."""
    url = planned(browser, MIXED)
    browser.log_in_as(operator)
    for path in ("/ui/imports", "/ui/imports/new", "/ui/imports/example.csv", url, f"{url}/errors.csv"):
        assert browser.open(path).status == 403, path
    assert browser.upload("/ui/imports/new", GOOD).status == 403
    assert browser.submit(f"{url}/apply", {"mode": "partial"}).status == 403
    assert browser.submit(f"{url}/undo").status == 403
    assert names(browser) == set() and 'href="/ui/imports"' not in browser.open("/ui/account").text


def test_another_tenants_import_is_not_found(browser: Browser) -> None:
    """Whatever is asked of it."""
    url = planned(browser, MIXED)
    browser.log_in_as(Operator("b@x", "TENANT_ADMIN", 77, uuid4(), uuid4()))
    assert [browser.open(one).status for one in (url, f"{url}/errors.csv")] == [404, 404]
    assert browser.submit(f"{url}/apply", {"mode": "partial"}).status == 404


def test_a_file_from_another_site_or_login_is_refused(browser: Browser) -> None:
    """The form's own token counts, and what the browser says of where it comes from."""
    wrong = browser.upload("/ui/imports/new", GOOD, token="0" * 32)
    assert wrong.status == 400 and "another login" in wrong.words
    foreign = browser.upload("/ui/imports/new", GOOD, headers="Sec-Fetch-Site: cross-site\r\n")
    assert foreign.status == 403
    assert "No import is on record" in browser.open("/ui/imports").words


class TestSizes:
    """How much may be sent, before it is received."""

    @staticmethod
    def announced(browser: Browser, path: str, length: int, headers: str = "") -> tuple[int, str] | None:
        """What is answered to the head alone; None where the body is waited for."""
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{browser._cookie_header()}{headers}Content-Length: {length}\r\n\r\n"
        browser.send(head.encode())
        answers = browser.received()
        return (answers[0][0], answers[0][2].decode()) if answers else None

    def test_a_file_may_be_larger_than_a_form(self, browser: Browser) -> None:
        """For whoever may import, up to the limit of REST, which the page tells."""
        assert self.announced(browser, "/ui/imports/new", MAX_FILE_BYTES) is None

    def test_a_file_above_the_limit_is_refused_in_a_page(self, browser: Browser) -> None:
        """At once, and in words for people."""
        answer = self.announced(browser, "/ui/imports/new", 2 * MAX_FILE_BYTES)
        assert answer is not None and answer[0] == 413 and "<h1>Not possible</h1>" in answer[1]

    @pytest.mark.parametrize("length", [100_000, 2 * MAX_FILE_BYTES])
    def test_a_stranger_sends_no_file(self, browser: Browser, length: int) -> None:
        """401 before a byte of it has come."""
        browser.cookies = {}
        answer = self.announced(browser, "/ui/imports/new", length)
        assert answer is not None and answer[0] == 401

    def test_a_viewer_sends_no_file(self, browser: Browser) -> None:
        """403 before a byte of it has come."""
        browser.log_in_as(somebody(UserRole.VIEWER))
        answer = self.announced(browser, "/ui/imports/new", 100_000)
        assert answer is not None and answer[0] == 403

    def test_another_site_sends_no_file(self, browser: Browser) -> None:
        """Whatever cookies the browser adds."""
        answer = self.announced(browser, "/ui/imports/new", 100_000, "Sec-Fetch-Site: cross-site\r\n")
        assert answer is not None and answer[0] == 403

    @pytest.mark.parametrize("path", ["/ui/users/new", "/ui/imports/new/x", "/ui/imports/newer"])
    def test_other_forms_stay_small(self, browser: Browser, path: str) -> None:
        """The file's place is the only one for files."""
        answer = self.announced(browser, path, MAX_FORM_BYTES + 1)
        assert answer is not None and answer[0] == 413

    def test_rest_keeps_its_own_limits(self) -> None:
        """A path that is no page's goes on to REST's rule, whatever the cookies."""
        limited = with_pages(lambda _request, _method, _path: 16, None)  # type: ignore[arg-type]
        assert limited(None, b"POST", b"/api/imports") == 16


def test_an_import_that_runs_shows_how_far_it_is(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar, in a part that is fetched again and again until it is done."""
    url = planned(browser)
    uuid = UUID(url.rsplit("/", 1)[-1])

    def under_way(tx: object) -> Batch:
        batch = tx.batch(TENANT, uuid)  # type: ignore[attr-defined]
        batch.state, batch.counts = BatchState.APPLYING, {"CREATE": 1, "CREATED": 1}
        tx.update_batch(batch)  # type: ignore[attr-defined]
        return batch  # type: ignore[no-any-return]

    browser.api.store.run(under_way)
    shown = browser.open(url)
    assert 'data-live-every="2"' in shown.text and '<progress id="progress" max="2" value="1">' in shown.text
    assert "Applying: 1 of 2 rows" in shown.words and f"{url}/apply" not in shown.text


def batch_of(state: BatchState, **counts: int) -> Batch:
    return Batch(
        uuid=uuid4(), tenant_id=1, created_ms=1, touched_ms=1, state=state, is_atomic=True, options={},
        idempotency_key=None, digest=b"", counts=counts,
    )  # fmt: skip


def test_counts_keep_the_ones_that_people_look_for() -> None:
    """A plan tells of no errors too; what cannot happen in a state is left out."""
    plan = counts_of(batch_of(BatchState.PLANNED, CREATE=3))
    assert [(one.status, one.number) for one in plan] == [
        ("CREATE", 3), ("UPDATE", 0), ("UNCHANGED", 0), ("CONFLICT", 0), ("ERROR", 0),
    ]  # fmt: skip
    assert [one.status for one in counts_of(batch_of(BatchState.UNDONE, UNDONE=1, KEPT=1))] == ["UNDONE", "KEPT"]
    assert [one.text for one in counts_of(batch_of(BatchState.PLANNED, ERROR=1), with_zeros=False)] == ["with an error"]


def test_steps_and_what_can_be_done() -> None:
    """File, plan, apply, report."""
    assert [step_of(batch_of(one)) for one in BatchState if one is not BatchState.DISCARDED] == [1, 2, 2, 3, 4, 4, 3, 4]
    assert doable_of(batch_of(BatchState.PLANNED, CREATE=2, UPDATE=1, ERROR=5)) == 3
    assert set(import_pages._STATES) == set(BatchState)
