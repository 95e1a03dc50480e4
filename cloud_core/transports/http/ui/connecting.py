"""The page that tells how devices of a profile connect; the wizard ends there too."""

from __future__ import annotations

from typing import Any

from cloud_core.core.names import fault_of
from cloud_core.model import DeviceProfile, ProvisionKey, ProvisionStrategy
from cloud_core.profile_options import DEFAULT_TELEMETRY_TOPIC, has_protobuf_payloads
from cloud_core.transports.endpoints import Listening
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.ui import profile_forms, snippets
from cloud_core.transports.http.ui.pages import Pages, text_of
from cloud_core.transports.http.ui.profile_certificates import try_pattern
from cloud_core.transports.http.ui.profile_forms import STEPS
from cloud_core.transports.http.ui.snippets import DEVICE, Door, Place
from cloud_core.transports.http.ui.visits import Visitor, is_secure


class Connecting(Pages):
    """Base of the classes that show it."""

    async def _connect(
        self, request: Any, visitor: Visitor, profile: DeviceProfile, *, way: str = "", with_tls: str = "",
        name: str = "", secret: str = "", key: ProvisionKey | None = None,
    ) -> str:  # fmt: skip
        """`key`: a further one that was just made, shown this once in the place of the profile's own."""
        by_chain = profile.provision.strategy.value == profile_forms.CHAIN
        ways = snippets.CHAIN_WAYS if by_chain else snippets.WAYS
        way, name = way if way in dict(ways) else "curl", _device(name)
        places = self._places(request)
        place = _place(places, with_tls or ("yes" if by_chain else ""))
        door = _door(profile, name, secret, key)
        shown = [] if place is None or (by_chain and not place.is_secure) else (
            snippets.with_certificate if by_chain else snippets.with_key
        )(way, place, door)  # fmt: skip
        return self.show(
            request, visitor, "connect.html", title=f"Connect · {profile.name}", profile=profile, by_chain=by_chain,
            is_disabled=profile.provision.strategy is ProvisionStrategy.DISABLED,
            needs_device=profile.provision.strategy is ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES,
            ways=ways, way=way, snippets=shown, place=place, tls_choices=sorted(places), device_name=name,
            certificate=snippets.certificate_snippet(name) if by_chain else None,
            rule=try_pattern(profile.provision.certificate_pattern, name) if by_chain else None,
            secret=secret, key=key, steps=STEPS, is_only_here=self._is_only_here(place), ca_file=snippets.CA_FILE,
            attempts=await self._attempts(visitor, profile, 3),
        )  # fmt: skip

    async def _attempts(self, visitor: Visitor, profile: DeviceProfile, limit: int) -> list[dict[str, Any]]:
        """The newest of this profile's keys, whichever of them was shown."""
        rows = await self._admin.lists.newest_attempts(visitor.operator, profile.uuid, limit)
        return [shapes.attempt_json(one) for one in rows]

    def _places(self, request: Any) -> dict[bool, Place]:
        return snippets.places_of(text_of(request.getHeader(b"host") or b""), is_secure(request), self._endpoints)

    def _is_only_here(self, place: Place | None) -> bool:
        """Whether the ports are open to programs on the core's own machine alone."""
        ports: list[Listening] = list(self._endpoints.ports.values())
        return place is not None and bool(ports) and all(one.is_loopback for one in ports)


def _device(name: str) -> str:
    return name.strip() if name.strip() and fault_of("name", name.strip()) is None else DEVICE


def _place(places: dict[bool, Place], with_tls: str) -> Place | None:
    """The one that was asked for; else without TLS on one's own machine, and with TLS elsewhere."""
    if with_tls in ("yes", "no"):
        return places.get(with_tls == "yes")
    plain = places.get(False)
    if plain is not None and plain.host in ("localhost", "127.0.0.1", "::1"):
        return plain
    return places.get(True) or plain


def _door(profile: DeviceProfile, name: str, secret: str, key: ProvisionKey | None) -> Door:
    shown_key = key.key if key is not None else profile.provision.key
    shown_secret = key.secret if key is not None else secret
    return Door(
        key=shown_key or snippets.KEY_PLACEHOLDER, secret=shown_secret or snippets.SECRET_PLACEHOLDER, name=name,
        topic=snippets.topic_of(_telemetry_filter(profile), has_protobuf_payloads(profile.document)),
    )  # fmt: skip


def _telemetry_filter(profile: DeviceProfile) -> str:
    return profile_forms.values_of(profile)["telemetry_topic"] or DEFAULT_TELEMETRY_TOPIC
