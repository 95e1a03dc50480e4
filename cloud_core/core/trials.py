"""Trying a device profile out: a provision request and a telemetry value, through the doors that devices use.

What comes of it is real: a device, its credentials, lines in the provisioning log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from cloud_core.core import device_credentials, inventory
from cloud_core.core.api import DeviceApi
from cloud_core.core.asking import Asking, answered
from cloud_core.core.inventory import found
from cloud_core.core.people.audit import Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.model import Device, DeviceProfile, Peer, PresentedCredentials, ProvisionStrategy, Transport
from cloud_core.storage.interface import Store, Tx
from shared.credentials import AccessToken, Credentials, MqttBasic
from shared.errors import InvalidArgument, ProvisionRefused, RateLimited
from shared.messages import ProvisionRequest, ProvisionResponse, Sample, Value


@dataclass(frozen=True, slots=True)
class Trial:
    """The device that came in, or the reference of the refusal."""

    device: Device | None = None
    ref: str = ""


class TrialsApi(Asking):
    """What operators can try in the place of a device."""

    def __init__(self, *, store: Store, api: DeviceApi, now_ms: Callable[[], int]) -> None:
        super().__init__(store, api.audit)
        self._api = api
        self._now_ms = now_ms

    async def provision(self, operator: Operator, uuid: UUID, name: str, address: str) -> Trial:
        """Asks with the profile's own key and secret, as a device at `address` would over HTTP.

        Raises: NotFound; InvalidArgument for a profile without a key; Unavailable.
        """
        profile = found(await self._read(inventory.profile, operator.tenant_id, uuid), "Device profile", uuid)
        _check_has_key(profile)
        provision = profile.provision
        request = ProvisionRequest(
            provision_key=provision.key, provision_secret=provision.secret, device_name=name.strip()
        )
        deed = Deed("TRIED", "DEVICE_PROFILE", lambda _: Subject(profile.uuid, profile.name, f"as device '{name}'"))
        await self._decide_by(operator, deed, _nothing)
        try:
            response: ProvisionResponse = await answered(
                lambda done: self._api.provision(request, Peer(Transport.HTTP, address), done)
            )
        except (ProvisionRefused, RateLimited) as refusal:
            return Trial(ref=refusal.ref or "")
        came_in = response.device_name or request.device_name
        device = await self._read(inventory.device_by_name, operator.tenant_id, came_in)
        return Trial(device=found(device, "Device", came_in))

    async def send(self, operator: Operator, device: Device, values: dict[str, Value]) -> None:
        """Logs in with the device's credentials, which confirms them, and sends telemetry.

        Raises: InvalidArgument where they are a certificate; NotAuthenticated where they are not good any more.
        """
        operator.check_owner(device)
        stored = found(await self._read(device_credentials.find, device.id), "Device credentials", device.uuid)
        presented = _presented(stored.credentials)
        deed = Deed("TRIED", "DEVICE", lambda _: Subject(device.uuid, device.name, "telemetry sent in its place"))
        await self._decide_by(operator, deed, _nothing)
        identity = await answered(lambda done: self._api.authenticate(presented, done))
        self._api.presence.seen(identity.device_id)
        samples: list[Sample] = [(self._now_ms(), values)]
        await answered(lambda done: self._api.post_telemetry(identity, samples, done))


def _check_has_key(profile: DeviceProfile) -> None:
    if profile.provision.strategy is ProvisionStrategy.X509_CERTIFICATE_CHAIN:
        raise InvalidArgument("Devices of this profile come in by certificate; only a device that has one can try")
    if not profile.provision.key or not profile.provision.secret:
        raise InvalidArgument("This profile has no provision key; choose a strategy that lets devices in")


def _presented(credentials: Credentials) -> PresentedCredentials:
    match credentials:
        case AccessToken(token):
            return PresentedCredentials(username=token)
        case MqttBasic(client_id, username, password):
            return PresentedCredentials(
                client_id=client_id, username=username, password=password, has_password=bool(password)
            )
        case _:
            raise InvalidArgument("This device logs in with a certificate; only the device itself has its key")


def _nothing(_tx: Tx) -> None:
    """What a trial itself decides."""
