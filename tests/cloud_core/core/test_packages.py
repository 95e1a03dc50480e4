"""Firmware and software on a real store: uploads, assignments, what devices are told and can fetch."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from twisted.internet.defer import succeed

from cloud_core.core import packages as packages_module
from cloud_core.core.admin import AdminApi
from cloud_core.core.api import Options
from cloud_core.core.downlinks import Ending, Interest
from cloud_core.core.packages import BLOCKS_PER_COMMIT, DEVICES_PER_COMMIT, MAX_PIECE_BYTES
from cloud_core.model import (
    PROVISIONING_IDENTITY,
    Identity,
    Package,
    Page,
    ProvisionConfiguration,
    ProvisionStrategy,
    Role,
    Scope,
)
from cloud_core.storage.interface import NewDevice
from cloud_core.storage.interface.packages import BLOCK_BYTES
from shared.errors import (
    InvalidArgument,
    NotAuthorized,
    NotFound,
    PackageNotFound,
    RequestTooLarge,
)
from shared.messages import AttributesChange, PackageKind, PackageRequest
from tests.cloud_core.core.test_admin import DOCUMENT, OPERATOR, AdminUnderTest
from tests.support.api import ApiUnderTest
from tests.support.listening import ListeningDownlink
from tests.support.stores import TENANT, StoreUnderTest

FIRMWARE, SOFTWARE = PackageKind.FIRMWARE, PackageKind.SOFTWARE
DATA = bytes(place % 251 for place in range(700_000))


class Packages(AdminUnderTest):
    """Profile `p` with device `d`, which listens."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.devices = ApiUnderTest(store, options=Options(max_package_bytes=3_000_000))
        self.admin = AdminApi(store=store.store, api=self.devices.api, jwt_key=b"j" * 64)
        self.api = self.devices.api.packages
        self.profile = self.save_profile("p", ProvisionConfiguration())
        self.device = self.save_device(name="d", type="p")
        self.downlink = ListeningDownlink()
        self.devices.api.downlinks.open(self.device.id, self.downlink, Interest.ATTRIBUTES)

    @property
    def store(self) -> StoreUnderTest:
        return self.devices.store

    def ask(self, start: Any) -> Any:
        outcome = self.devices.outcome(start)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def save_info(self, title: str = "fw", **members: Any) -> Package:
        given: dict[str, Any] = {"version": "1.0", "kind": FIRMWARE, "profile_uuid": self.profile.uuid} | members
        package = Package(id=0, uuid=given.pop("uuid", UUID(int=0)), tenant_id=0, profile_id=0, title=title, **given)
        saved: Package = self.ask(lambda done: self.api.save_info(TENANT, package, done))
        return saved

    def upload(self, package: Package, data: bytes = DATA, algorithm: str = "SHA256", checksum: str = "") -> Any:
        return self.ask(
            lambda done: self.api.upload(
                TENANT, package.uuid, file_name="f.bin", content_type="application/x-f", algorithm=algorithm,
                checksum=checksum, data=io.BytesIO(data), done=done,
            )
        )  # fmt: skip

    def make(self, title: str = "fw", data: bytes = DATA, **members: Any) -> Package:
        uploaded: Package = self.upload(self.save_info(title, **members), data)
        return uploaded

    def assign(self, firmware: Package | None, **members: Any) -> Any:
        return self.save_device(
            id=str(self.device.uuid), name="d", firmwareId={"id": str(firmware.uuid)} if firmware else None,
            **({"type": "p"} | members),
        )  # fmt: skip

    def assign_to_profile(self, firmware: Package | None) -> None:
        document = DOCUMENT | {"firmwareId": {"id": str(firmware.uuid)} if firmware else None}
        call = self.admin.save_profile(OPERATOR, self.profile.uuid, "p", ProvisionConfiguration(), document, None)
        self.run(call)
        for _ in range(6):
            self.store.run(lambda tx: None)

    def fetch(self, **members: Any) -> Any:
        identity = Identity(Role.DEVICE, TENANT, self.device.id)
        request = PackageRequest(**({"kind": FIRMWARE} | members))
        return self.ask(lambda done: self.api.fetch(identity, request, done))

    def shared(self, device_id: int = 0) -> dict[str, Any]:
        entries = self.store.read(lambda tx: tx.attributes(device_id or self.device.id, Scope.SHARED))
        return {one.key: one.value for one in entries}

    def latest(self, device_id: int = 0) -> dict[str, Any]:
        found = self.store.read(lambda tx: tx.latest(device_id or self.device.id))
        return {key: value for key, (_, value) in found.items()}

    def take_news(self) -> list[AttributesChange]:
        news, self.downlink.changes = self.downlink.changes, []
        return news


@pytest.fixture
def ota(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Packages:
    # The test has no reactor for threads to come back to.
    monkeypatch.setattr(packages_module, "deferToThread", lambda work, *args: succeed(work(*args)))
    return Packages(sqlite_store)


# -- what is known of a package -------------------------------------------------------------------


def test_a_package_is_described_then_uploaded(ota: Packages) -> None:
    """Its checksum is summed here where none is given; its bytes come back in any part."""
    info = ota.save_info(tag="t", document={"additionalInfo": {"a": 1}})
    assert (info.has_data, info.size_bytes, info.profile_uuid) == (False, 0, ota.profile.uuid)
    package = ota.upload(info)
    assert (package.checksum, package.checksum_algorithm) == (hashlib.sha256(DATA).hexdigest(), "SHA256")
    assert (package.has_data, package.size_bytes, package.file_name) == (True, len(DATA), "f.bin")
    assert package.document == {"additionalInfo": {"a": 1}}
    part = ota.ask(lambda done: ota.api.read(TENANT, package.uuid, 300_000, 10_000, done))
    assert part == DATA[300_000:310_000]
    assert ota.ask(lambda done: ota.api.find(TENANT, package.uuid, done)) == package


@pytest.mark.parametrize("algorithm", ["MD5", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"])
def test_a_given_checksum_is_verified(ota: Packages, algorithm: str) -> None:
    """Whatever case it is written in; a wrong one stores nothing."""
    info = ota.save_info()
    with pytest.raises(InvalidArgument, match="Wrong otaPackage file") as refusal:
        ota.upload(info, algorithm=algorithm, checksum="00")
    assert not ota.ask(lambda done: ota.api.find(TENANT, info.uuid, done)).has_data
    right = str(refusal.value).rsplit(" ", 1)[1]
    assert ota.upload(info, algorithm=algorithm, checksum=right.upper()).checksum == right


def test_bytes_are_given_once(ota: Packages) -> None:
    """What devices have verified never changes."""
    package = ota.make()
    with pytest.raises(InvalidArgument, match="prohibited"):
        ota.upload(package, b"other")
    assert ota.ask(lambda done: ota.api.read(TENANT, package.uuid, 0, 10, done)) == DATA[:10]


def test_two_uploads_at_once_do_not_mix(ota: Packages) -> None:
    """The second is refused while the first is under way; then the door is open again."""
    info, outcomes = ota.save_info(), []
    for data in (DATA, b"other"):
        ota.api.upload(
            TENANT, info.uuid, file_name="f", content_type="", algorithm="MD5", checksum="", data=io.BytesIO(data),
            done=outcomes.append,
        )  # fmt: skip
    assert isinstance(outcomes[0], InvalidArgument)
    ota.store.reactor.run_until(lambda: len(outcomes) == 2)
    assert outcomes[1].checksum == hashlib.md5(DATA).hexdigest()
    with pytest.raises(InvalidArgument, match="prohibited"):
        ota.upload(info)


def test_an_upload_ends_when_its_package_is_deleted(ota: Packages) -> None:
    info, outcomes = ota.save_info(), []
    ota.api.upload(
        TENANT, info.uuid, file_name="f", content_type="", algorithm="MD5", checksum="",
        data=io.BytesIO(bytes(2 * BLOCKS_PER_COMMIT * BLOCK_BYTES)), done=outcomes.append,
    )  # fmt: skip
    ota.ask(lambda done: ota.api.delete(TENANT, info.uuid, done))
    ota.store.reactor.run_until(lambda: outcomes)
    assert isinstance(outcomes[0], NotFound)


@pytest.mark.parametrize(
    ("data", "algorithm", "error"),
    [(b"", "MD5", InvalidArgument), (b"x", "SHA1", InvalidArgument), (bytes(3_000_001), "MD5", RequestTooLarge)],
)
def test_unusable_uploads(ota: Packages, data: bytes, algorithm: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        ota.upload(ota.save_info(), data, algorithm)


def test_a_package_at_a_url_takes_no_bytes(ota: Packages) -> None:
    with pytest.raises(InvalidArgument, match="URL"):
        ota.upload(ota.save_info(url="https://h/f"))


@pytest.mark.parametrize(
    "members",
    [{"title": " "}, {"version": ""}, {"title": "x" * 256}, {"tag": "<script>"}, {"profile_uuid": uuid4()},
     {"url": "https://h/" + "f" * 1024}],
)  # fmt: skip
def test_unusable_descriptions(ota: Packages, members: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        ota.save_info(**members)


def test_title_and_version_name_a_package(ota: Packages) -> None:
    ota.save_info()
    with pytest.raises(InvalidArgument, match="already exists"):
        ota.save_info(kind=SOFTWARE)
    assert ota.save_info(version="1.1").version == "1.1"


def test_what_devices_were_told_does_not_change(ota: Packages) -> None:
    """Notes may; an unknown package is not found."""
    info = ota.save_info()
    for members in ({"version": "2"}, {"kind": SOFTWARE}, {"tag": "t"}, {"url": "https://h/f"}):
        with pytest.raises(InvalidArgument, match="prohibited"):
            ota.save_info(uuid=info.uuid, **members)
    assert ota.save_info(uuid=info.uuid, document={"additionalInfo": 1}).document == {"additionalInfo": 1}
    with pytest.raises(NotFound):
        ota.save_info(uuid=uuid4())


def test_packages_of_a_profile_are_those_that_can_be_assigned(ota: Packages) -> None:
    ota.save_info("empty")
    linked, software = ota.save_info("linked", url="https://h/f"), ota.make("app", kind=SOFTWARE)

    def listed(kind: PackageKind | None, profile: UUID | None) -> list[str]:
        rows, _ = ota.ask(lambda done: ota.api.list(TENANT, Page(), kind, profile, done))
        return [one.title for one in rows]

    assert listed(None, None) == ["empty", "linked", "app"]
    assert listed(FIRMWARE, ota.profile.uuid) == [linked.title]
    assert listed(SOFTWARE, ota.profile.uuid) == [software.title]
    with pytest.raises(NotFound):
        listed(SOFTWARE, uuid4())


def test_an_assigned_package_cannot_be_deleted(ota: Packages) -> None:
    package = ota.make()
    ota.assign(package)
    with pytest.raises(InvalidArgument, match="cannot be deleted"):
        ota.ask(lambda done: ota.api.delete(TENANT, package.uuid, done))
    ota.assign(None)
    ota.ask(lambda done: ota.api.delete(TENANT, package.uuid, done))
    with pytest.raises(NotFound):
        ota.ask(lambda done: ota.api.find(TENANT, package.uuid, done))


# -- assignments ----------------------------------------------------------------------------------


def test_an_assignment_reaches_its_device(ota: Packages) -> None:
    """As shared attributes that it hears of, and as the time series that ThingsBoard keeps; the session goes on."""
    package = ota.make(tag="t")
    saved = ota.assign(package)
    expected = {
        "fw_title": "fw", "fw_version": "1.0", "fw_tag": "t", "fw_size": len(DATA), "fw_checksum": package.checksum,
        "fw_checksum_algorithm": "SHA256",
    }  # fmt: skip
    assert ota.shared() == expected
    assert ota.take_news() == [AttributesChange(values=expected)] and ota.downlink.endings == []
    assert ota.latest() == {
        "fw_state": "QUEUED", "target_fw_title": "fw", "target_fw_version": "1.0", "target_fw_tag": "t",
        "target_fw_ts": ota.devices.api.now_ms(),
    }  # fmt: skip
    assert saved.document["firmwareId"] == {"id": str(package.uuid)}


def test_another_save_of_the_same_assignment_is_no_news(ota: Packages) -> None:
    package = ota.make()
    ota.assign(package)
    ota.take_news()
    ota.assign(package, label="l")
    assert ota.take_news() == []


def test_a_new_assignment_replaces_all_of_the_old_one(ota: Packages) -> None:
    """What the new package lacks is deleted, a tag and the bytes' size among it."""
    ota.assign(ota.make(tag="t"))
    ota.take_news()
    ota.assign(ota.save_info("linked", url="https://h/f"))
    linked = {"fw_title": "linked", "fw_version": "1.0", "fw_url": "https://h/f"}
    assert ota.shared() == linked
    assert [set(one.deleted) for one in ota.take_news()] == [
        {"fw_tag", "fw_size", "fw_checksum", "fw_checksum_algorithm"}, set(),
    ]  # fmt: skip


def test_taking_it_away_deletes_the_attributes(ota: Packages) -> None:
    """And leaves others alone, among them those of the other kind."""
    app = ota.make("app", kind=SOFTWARE)
    fw = ota.make()
    both = {"softwareId": {"id": str(app.uuid)}}
    ota.assign(fw, **both)
    ota.store.run(lambda tx: tx.put_attributes(ota.device.id, Scope.SHARED, {"fw_other": 1}, now_ms=1))
    ota.take_news()
    ota.assign(None, **both)
    assert {key for key in ota.shared() if key.startswith("fw_")} == {"fw_other"}
    assert ota.shared()["sw_title"] == "app"
    (news,) = ota.take_news()
    assert set(news.deleted) == {"fw_title", "fw_version", "fw_size", "fw_checksum", "fw_checksum_algorithm"}


@pytest.mark.parametrize("member", ["firmwareId", "softwareId"])
def test_only_a_fitting_package_can_be_assigned(ota: Packages, member: str) -> None:
    """One that exists, of the right kind, with bytes or a URL, and of the device's own profile."""
    kind, other_kind = (FIRMWARE, SOFTWARE) if member == "firmwareId" else (SOFTWARE, FIRMWARE)
    other = ota.save_profile("other", ProvisionConfiguration())
    unfit = {
        "non-existent": uuid4(),
        "with type": ota.make("kind", kind=other_kind).uuid,
        "with empty data": ota.save_info("empty", kind=kind).uuid,
        "with different deviceProfile": ota.make("profile", kind=kind, profile_uuid=other.uuid).uuid,
        "no valid id": "x",
    }
    for message, uuid in unfit.items():
        with pytest.raises(InvalidArgument, match=message):
            ota.save_device(id=str(ota.device.uuid), name="d", type="p", **{member: {"id": str(uuid)}})
        document = DOCUMENT | {member: {"id": str(uuid)}}
        with pytest.raises(InvalidArgument, match=message):
            ota.run(
                ota.admin.save_profile(OPERATOR, ota.profile.uuid, "p", ProvisionConfiguration(), document, None)
            )  # fmt: skip
    assert ota.shared() == {}


def test_a_refused_assignment_makes_no_profile(ota: Packages) -> None:
    """The profile that a type would have made is rolled back with the rest."""
    package = ota.make()
    with pytest.raises(InvalidArgument, match="different deviceProfile"):
        ota.save_device(name="new", type="made by type", firmwareId={"id": str(package.uuid)})
    assert ota.store.read(lambda tx: tx.profile_by_name(TENANT, "made by type")) is None
    assert ota.store.read(lambda tx: tx.device_by_name(TENANT, "new")) is None


def test_a_profiles_package_reaches_all_its_devices_in_batches(ota: Packages) -> None:
    """Also the last one of an uneven batch; a device with a package of its own keeps that."""
    own = ota.make("own")
    ota.assign(own)
    ota.take_news()

    def add(tx: Any) -> list[int]:
        return [
            tx.insert_device(
                NewDevice(uuid=uuid4(), tenant_id=TENANT, profile_id=ota.profile.id, name=f"d{number}", created_ms=1)
            )
            for number in range(2 * DEVICES_PER_COMMIT + 1)
        ]  # fmt: skip

    device_ids = ota.store.run(add)
    last = ListeningDownlink()
    ota.devices.api.downlinks.open(device_ids[-1], last, Interest.ATTRIBUTES)
    ota.assign_to_profile(ota.make("all"))
    assert all(ota.shared(one)["fw_title"] == "all" for one in device_ids)
    assert ota.latest(device_ids[0])["fw_state"] == "QUEUED"
    assert [one.values["fw_title"] for one in last.changes] == ["all"]
    assert (ota.shared()["fw_title"], ota.take_news()) == ("own", [])
    assert ota.store.read(lambda tx: tx.package_rollouts()) == []
    ota.assign_to_profile(None)
    assert [ota.shared(one) for one in device_ids] == [{}] * len(device_ids)
    assert ota.shared()["fw_title"] == "own"


def test_a_rollout_goes_on_after_a_restart(ota: Packages) -> None:
    """The assignment is answered before its devices are told: a stop in between must not lose them."""
    package = ota.make()
    ota.api.roll_out = lambda: None  # type: ignore[method-assign]  # the process ends here
    ota.assign_to_profile(package)
    assert ota.shared() == {}
    again = ApiUnderTest(ota.store).api
    again.packages.maintain()
    for _ in range(3):
        ota.store.run(lambda tx: None)
    assert ota.shared()["fw_title"] == "fw"


def test_a_profiles_package_comes_back_when_the_own_one_goes(ota: Packages) -> None:
    ota.assign_to_profile(ota.make("profile's"))
    ota.assign(ota.make("own"))
    ota.take_news()
    ota.assign(None)
    assert ota.shared()["fw_title"] == "profile's"
    assert [one.values["fw_title"] for one in ota.take_news()] == ["profile's"]


def test_a_device_that_joins_or_leaves_a_profile_is_told(ota: Packages) -> None:
    """When it is made, when it moves, when it is provisioned."""
    ota.assign_to_profile(ota.make())
    assert ota.shared(ota.save_device(name="new", type="p").id)["fw_title"] == "fw"
    ota.assign(None, type="elsewhere")
    assert ota.shared() == {} and ota.downlink.endings == [Ending.DEVICE_CHANGED]
    provision = ProvisionConfiguration(strategy=ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES, key="k", secret="s")
    document = ota.store.read(lambda tx: tx.profile(TENANT, ota.profile.uuid)).document
    ota.run(ota.admin.save_profile(OPERATOR, ota.profile.uuid, "p", provision, document, None))
    ota.devices.provision(provision_key="k", provision_secret="s", device_name="sn1")
    made = ota.store.read(lambda tx: tx.device_by_name(TENANT, "sn1"))
    assert ota.shared(made.id)["fw_title"] == "fw" and ota.latest(made.id)["fw_state"] == "QUEUED"


def test_devices_can_be_told_by_number(ota: Packages) -> None:
    """For assignments that are made elsewhere; strangers are passed over."""
    package = ota.make()
    ota.store.run(lambda tx: tx.assign_package(FIRMWARE, package.id, device_id=ota.device.id))
    ota.api.assigned(TENANT, [ota.device.id, 10_000], FIRMWARE)
    ota.api.assigned(TENANT + 1, [ota.device.id], SOFTWARE)
    ota.store.run(lambda tx: None)
    assert [one.values["fw_title"] for one in ota.take_news()] == ["fw"]


# -- devices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [1, 50_000, BLOCK_BYTES, 300_000, len(DATA), len(DATA) + 1])
def test_a_device_gets_its_package_in_chunks(ota: Packages, chunk_bytes: int) -> None:
    """Of any size; past the end there is nothing."""
    ota.assign(ota.make())
    count = min(3, -(-len(DATA) // chunk_bytes))
    chunks = [ota.fetch(chunk_bytes=chunk_bytes, chunk=number) for number in range(count)]
    assert b"".join(one.data for one in chunks) == DATA[: count * chunk_bytes]
    assert (chunks[0].file_name, chunks[0].content_type) == ("f.bin", "application/x-f")
    assert chunks[0].total_bytes == len(DATA)
    assert ota.fetch(chunk_bytes=chunk_bytes, chunk=-(-len(DATA) // chunk_bytes)).data == b""
    assert ota.fetch(chunk_bytes=chunk_bytes, chunk=2**60).data == b""


def test_a_small_package_comes_at_once(ota: Packages) -> None:
    ota.assign(ota.make())
    assert ota.fetch().data == DATA
    assert ota.fetch(title="fw", version="1.0").data == DATA
    assert ota.fetch(chunk=1).data == b""


def test_what_fetch_refuses(ota: Packages) -> None:
    """No package; another title or version; a package elsewhere; negative numbers; a provision-only session."""
    with pytest.raises(PackageNotFound):
        ota.fetch()
    ota.assign(ota.make())
    with pytest.raises(PackageNotFound):
        ota.fetch(kind=SOFTWARE)
    for members in ({"title": "other"}, {"version": "2"}, {"chunk_bytes": -1}, {"chunk": -1, "chunk_bytes": 5}):
        with pytest.raises(InvalidArgument):
            ota.fetch(**members)
    ota.assign(ota.save_info("linked", url="https://h/f"))
    with pytest.raises(PackageNotFound, match="https://h/f"):
        ota.fetch()
    with pytest.raises(NotAuthorized):
        ota.ask(lambda done: ota.api.fetch(PROVISIONING_IDENTITY, PackageRequest(kind=FIRMWARE), done))


def test_no_answer_holds_more_than_its_bound(ota: Packages) -> None:
    """A large package is fetched in pieces, whatever is asked for."""
    package = ota.make(data=b"x")
    size = MAX_PIECE_BYTES + 1
    ota.store.run(lambda tx: tx.update_package(replace(package, size_bytes=size)))
    ota.assign(package)
    with pytest.raises(InvalidArgument, match="chunks"):
        ota.fetch()
    assert ota.fetch(chunk_bytes=MAX_PIECE_BYTES, chunk=0).data == b"x"


def test_a_profile_is_deleted_with_its_packages(ota: Packages) -> None:
    package = ota.make()
    ota.run(ota.admin.delete_device(OPERATOR, ota.device.uuid))
    ota.run(ota.admin.delete_profile(OPERATOR, ota.profile.uuid))
    with pytest.raises(NotFound):
        ota.ask(lambda done: ota.api.find(TENANT, package.uuid, done))
