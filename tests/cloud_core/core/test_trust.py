"""Which chains lead to a CA: path building, what simple recipes make, bounds on what a stranger can cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_core.core.certificates import trust, trust_faults
from cloud_core.core.certificates.trust import Fault
from cloud_core.model import PresentedChain
from shared.errors import Reason, UntrustedCertificate
from tests.support.pki import CLIENT, SERVER, Ca, Holder, Leaf, Pki, generate

PKI = Pki()
NOW_MS = int(PKI.now.timestamp() * 1000)
ROOT = PKI.root("Root")
LINE = ROOT.intermediate("Line", path_length=1)
CELL = LINE.intermediate("Cell", path_length=0)
DEVICE = CELL.leaf("sensor-1")


def verify(
    leaf: Holder, shown: Sequence[Holder], anchor: Holder, helpers: Sequence[Holder] = (), now_ms: int = NOW_MS
) -> list[str]:
    """Subjects of the path."""
    chain = trust.parse(PresentedChain(leaf.der, tuple(one.der for one in shown)))
    path = trust.verify(chain, anchor.certificate, [one.certificate for one in helpers], now_ms)
    assert path[0] == leaf.certificate
    assert path[-1] == anchor.certificate
    return [one.subject.rfc4514_string().removeprefix("CN=") for one in path]


WHOLE = ["sensor-1", "Cell", "Line", "Root"]


@pytest.mark.parametrize(
    ("shown", "helpers"),
    [
        ([CELL, LINE], []),
        ([], [CELL, LINE]),
        ([], [LINE, CELL]),
        ([LINE], [CELL]),
        ([LINE, CELL], []),
        ([CELL, LINE, ROOT], [ROOT]),
        ([CELL, CELL, LINE, CELL, DEVICE, ROOT, ROOT], [LINE, CELL, CELL]),
        ([PKI.root("Line"), PKI.root("Stranger"), CELL], [LINE]),
    ],
    ids=["all shown", "leaf alone", "helpers turned round", "one each", "turned round", "with the root", "repeated",
         "with strangers"],
)  # fmt: skip
def test_a_path_is_built_from_what_is_shown_and_what_the_profile_has(shown: list[Ca], helpers: list[Ca]) -> None:
    """Order, repetitions and strangers do not matter."""
    assert verify(DEVICE, shown, ROOT, helpers) == WHOLE


def test_an_intermediate_can_be_the_anchor() -> None:
    """Nothing above it is looked at, whether shown or not."""
    assert verify(DEVICE, [], CELL) == ["sensor-1", "Cell"]
    assert verify(DEVICE, [CELL, LINE, ROOT], CELL) == ["sensor-1", "Cell"]
    over = PKI.root("Over", not_after=PKI.now - timedelta(days=1))
    below = over.intermediate("Below")
    assert verify(below.leaf("device"), [below, over], below) == ["device", "Below"]


def test_a_cross_signed_ca_is_taken_when_one_way_leads_to_the_anchor() -> None:
    """Whichever of its certificates comes first."""
    old, new = PKI.root("Old"), PKI.root("New")
    shared = old.intermediate("Shared")
    crossed = new.cross_sign(shared)
    device = shared.leaf("device")
    for shown in ([shared, crossed], [crossed, shared]):
        assert verify(device, shown, new) == ["device", "Shared", "New"]
        assert verify(device, shown, old) == ["device", "Shared", "Old"]


def test_a_bad_way_does_not_hide_a_good_one() -> None:
    """Of the certificates of a cross-signed CA one is over, one has the wrong usage, one is good."""
    shared = ROOT.intermediate("Shared")
    over = ROOT.cross_sign(shared, not_after=PKI.now - timedelta(days=1))
    wrong = ROOT.cross_sign(shared, key_usage=("crl_sign",))
    for shown in ([over, wrong, shared], [shared, wrong, over], [wrong, over, shared]):
        assert verify(shared.leaf("device"), shown, ROOT) == ["device", "Shared", "Root"]


def test_a_ca_may_have_the_name_of_its_issuer() -> None:
    """As when a CA vouches for its own new key."""
    ca = LINE.intermediate("Line")
    assert verify(ca.leaf("device"), [LINE, ca], ROOT) == ["device", "Line", "Line", "Root"]


def test_a_renewed_root_stands_for_the_one_before() -> None:
    """The same name and key in a new certificate."""
    renewed = PKI.root("Root", key=ROOT.key)
    assert verify(DEVICE, [CELL, LINE, ROOT], renewed) == WHOLE


@pytest.mark.parametrize(
    "options",
    [
        {"has_constraints": False, "key_usage": (), "extended_usage": (), "has_key_ids": False},
        {"has_critical_constraints": False, "key_usage": ()},
        {"key_usage": ("key_agreement",)},
        {"extended_usage": (SERVER, CLIENT)},
        {"extended_usage": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)},
        {"dns_names": ("sensor-1.example",)},
        {"subject": x509.Name([])},
        {"key": "p384"},
        {"key": "p521"},
        {"key": "rsa2048"},
        {"hash": "sha384"},
        {"hash": "sha512"},
    ],
    ids=lambda options: ", ".join(options),
)
def test_what_devices_have_passes(options: dict[str, object]) -> None:
    """A common name is enough; usages count where they are present."""
    assert verify(CELL.leaf("device", **options), [CELL, LINE], ROOT)[1:] == WHOLE[1:]


@pytest.mark.parametrize(
    "options",
    [
        {"has_critical_constraints": False, "key_usage": (), "has_key_ids": False},
        {"key": "rsa2048"},
        {"key": "p384", "hash": "sha384"},
        {"extended_usage": (CLIENT, SERVER)},
    ],
    ids=lambda options: ", ".join(options),
)
def test_what_simple_recipes_make_of_a_ca_passes(options: dict[str, object]) -> None:
    """BasicConstraints need not be critical; identifiers of keys need not be there."""
    root = PKI.root("Simple", **options)
    ca = root.intermediate("Below", **options)
    assert verify(ca.leaf("device"), [ca], root) == ["device", "Below", "Simple"]


def test_a_certificate_of_version_1_passes_as_a_devices() -> None:
    """What `openssl x509 -req` makes without a file of extensions, under a root, an intermediate, another anchor."""
    device = CELL.leaf("sensor-1", is_version_1=True)
    assert device.certificate.version is x509.Version.v1
    assert verify(device, [CELL, LINE], ROOT) == WHOLE
    assert verify(device, [LINE, CELL, PKI.root("Cell")], ROOT) == WHOLE
    assert verify(device, [], CELL) == ["sensor-1", "Cell"]
    assert verify(ROOT.leaf("device", is_version_1=True, key="rsa2048"), [], ROOT) == ["device", "Root"]


def test_one_second_decides() -> None:
    """The end itself is still valid, the second after it is not."""
    device = CELL.leaf("device", not_before=PKI.now, not_after=PKI.now)
    assert verify(device, [CELL, LINE], ROOT, now_ms=NOW_MS + 999)
    trust.check_validity(device.certificate, NOW_MS)
    for moved, fault in ((1000, Fault.EXPIRED), (-1, Fault.NOT_YET_VALID)):
        with pytest.raises(UntrustedCertificate) as refused:
            verify(device, [CELL, LINE], ROOT, now_ms=NOW_MS + moved)
        assert refused.value.fault == fault
        with pytest.raises(UntrustedCertificate) as refused:
            trust.check_validity(device.certificate, NOW_MS + moved)
        assert refused.value.fault == fault


def test_ten_certificates_are_the_longest_path() -> None:
    """Anchor included."""
    ten = PKI.chain_of_length(9)
    assert len(verify(ten, ten.chain[:-1], ten.chain[-1])) == 10
    eleven = PKI.chain_of_length(10)
    with pytest.raises(UntrustedCertificate) as refused:
        verify(eleven, eleven.chain[:-1], eleven.chain[-1])
    assert refused.value.fault == Fault.CHAIN_TOO_LONG


class Counted:
    """How many signatures were checked, by ours and by the verifier (which asks for each CA's rules first)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        rule, check = trust_faults.ca_fault, trust_faults.is_signed_by
        monkeypatch.setattr(trust_faults, "ca_fault", lambda one: self._counting(rule, one))
        monkeypatch.setattr(trust_faults, "is_signed_by", lambda *both: self._counting(check, *both))

    def _counting(self, work: object, *given: object) -> object:
        self.count += 1
        return work(*given)  # type: ignore[operator]


def mesh(issuer: Ca, count: int) -> list[Ca]:
    """CAs of one name and key, each of which can have issued each."""
    key = generate("p256")
    first = issuer.intermediate("Mesh", key=key)
    return [first.intermediate("Mesh", key=key) for _ in range(count)]


@pytest.mark.parametrize("names", [1, 2, 3])
def test_a_strangers_maze_costs_little(monkeypatch: pytest.MonkeyPatch, names: int) -> None:
    """Nine CAs that have all issued each other, and none of them issued by the anchor."""
    stranger = PKI.root("Mesh")
    keys = [generate("p256") for _ in range(names)]
    heads = [stranger.intermediate(f"Mesh {number}", key=key) for number, key in enumerate(keys)]
    maze = [head.cross_sign(other) for head in heads for other in heads for _ in range(3)][:9]
    counted = Counted(monkeypatch)
    with pytest.raises(UntrustedCertificate):
        verify(heads[0].leaf("device"), maze, ROOT)
    assert counted.count <= 60


def test_a_maze_under_a_ca_that_is_trusted_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without what is filtered out first, the verifier gives up by itself, after 256 signatures."""
    maze = mesh(LINE, 8)
    stranger = PKI.root("Mesh", key=maze[0].key)
    counted = Counted(monkeypatch)
    with pytest.raises(UntrustedCertificate):
        verify(stranger.leaf("device"), maze, ROOT)
    assert counted.count <= 60


def test_a_devices_own_key_opens_no_maze(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaf that is good signs nine CAs of one name; the one below them is told what is wrong."""
    key = generate("p256")
    forged = [DEVICE.intermediate("Mesh", key=key) for _ in range(5)]
    counted = Counted(monkeypatch)
    with pytest.raises(UntrustedCertificate) as refused:
        verify(forged[0].leaf("device"), [*forged, DEVICE, CELL, LINE], ROOT)
    assert refused.value.fault == Fault.NOT_A_CA
    assert counted.count <= 60


def parts_of(whole: Leaf) -> list[bytes]:
    return [whole.der, *(ca.der for ca in whole.chain[:-1])]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2), st.integers(min_value=0), st.integers(1, 255))
def test_no_changed_byte_makes_another_certificate_good(which: int, position: int, mask: int) -> None:
    """Whatever is accepted has the name and the key that the CA has signed."""
    parts = parts_of(DEVICE)
    changed = bytearray(parts[which])
    changed[position % len(changed)] ^= mask
    parts[which] = bytes(changed)
    try:
        chain = trust.parse(PresentedChain(parts[0], tuple(parts[1:])))
        path = trust.verify(chain, ROOT.certificate, (), NOW_MS)
    except UntrustedCertificate as refused:
        assert Fault(refused.fault)
        assert len(refused.detail) < 1000
        return
    # A signature has several encodings of which some parsers take more than one: what is signed is the same.
    genuine = [one.certificate.tbs_certificate_bytes for one in (DEVICE, CELL, LINE, ROOT)]
    assert [one.tbs_certificate_bytes for one in path] == genuine


@settings(max_examples=60, deadline=None)
@given(st.permutations([CELL, LINE, PKI.root("Cell"), PKI.root("Line"), ROOT.intermediate("Line"), DEVICE]),
       st.integers(0, 6))  # fmt: skip
def test_whatever_is_shown_the_answer_follows_from_what_is_there(pool: list[Holder], count: int) -> None:
    """A path is found exactly when both CAs are among what is shown."""
    shown = pool[:count]
    if CELL in shown and LINE in shown:
        assert verify(DEVICE, shown, ROOT) == WHOLE
    else:
        with pytest.raises(UntrustedCertificate):
            verify(DEVICE, shown, ROOT)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.lists(st.binary(max_size=100), max_size=4))
def test_garbage_is_refused_as_malformed(leaf: bytes, others: list[bytes]) -> None:
    """By the one class that the transports know."""
    with pytest.raises(UntrustedCertificate) as refused:
        trust.parse(PresentedChain(leaf, tuple(others)))
    assert refused.value.fault == Fault.MALFORMED
    assert refused.value.reason is Reason.UNTRUSTED_CERTIFICATE


def test_a_way_that_was_found_good_ends_with_its_certificates() -> None:
    """The next device of the same issuer costs one signature, and no less is asked of it."""
    pki = Pki()
    line = pki.root("R").intermediate("Short", not_after=pki.now + timedelta(hours=1))
    way = line.intermediate("Below")
    shown = [way, line]
    now_ms = int(pki.now.timestamp() * 1000)
    for name in ("one", "two"):
        trust.verify(trust.parse(way.leaf(name).presented), line.chain[0].certificate, (), now_ms)
    late = trust.parse(way.leaf("three").presented)
    with pytest.raises(UntrustedCertificate) as refused:
        trust.verify(late, line.chain[0].certificate, (), now_ms + 2 * 3_600_000)
    assert refused.value.fault == Fault.EXPIRED
    forged = Pki().root("Below").leaf("four")
    chain = trust.parse(PresentedChain(forged.der, tuple(one.der for one in shown)))
    with pytest.raises(UntrustedCertificate):
        trust.verify(chain, line.chain[0].certificate, (), now_ms)
