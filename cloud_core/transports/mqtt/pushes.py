"""What the core sends a device's MQTT session: attribute changes and commands, as its subscriptions ask.

The last subscription among the v1, v2, v2/j and v2/p forms decides topic and encoding (wire-contract.md section 2.7).
A command of QoS 1 is delivered once the client has acknowledged it, one of QoS 0 once it is written (section 2.9).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from cloud_core.core.downlinks import Delivery, Downlinks, Ending, Interest
from cloud_core.model import Identity
from cloud_core.transports.mqtt.subscriptions import Subscriptions
from shared import topics
from shared.codecs import JSON, Codec
from shared.errors import PlatformError
from shared.messages import AttributesChange, RpcCommand
from shared.topics import Flavour

log = Logger()

# (topic, payload, QoS, receipt or None) -> whether it was sent; see `ServerConnection.publish`.
Publish = Callable[[str, bytes, int, object], bool]


class Receipt:
    """A message that waits for the client's acknowledgement; `fate` is told whether it came."""

    __slots__ = ("fate",)

    def __init__(self, fate: Callable[[bool], None]) -> None:
        self.fate = fate


class Pushes:
    """The `Downlink` of one session."""

    __slots__ = ("_attributes", "_awaited", "_commands", "_downlinks", "_end", "_identity", "_publish",
                 "_subscriptions")  # fmt: skip

    def __init__(
        self,
        identity: Identity,
        subscriptions: Subscriptions,
        downlinks: Downlinks,
        *,
        publish: Publish,
        end: Callable[[Ending], None],
    ) -> None:
        self._identity = identity
        self._downlinks = downlinks
        self._publish = publish
        self._end = end
        self._subscriptions = subscriptions
        self._attributes: tuple[Flavour, int] | None = None  # and the QoS
        self._commands: tuple[Flavour, int] | None = None
        self._awaited: set[Receipt] = set()
        downlinks.open(identity.device_id, self, Interest.NOTHING)

    def settle(self) -> None:
        """After a SUBSCRIBE or UNSUBSCRIBE was answered: tells the core what this session wants to hear from now on."""
        self._attributes = self._commands = None
        own_topic = self._identity.options.attributes_subscribe_topic
        for topic_filter, qos in self._subscriptions.items():
            flavour = topics.attributes_push_of(topic_filter, own_topic)
            if flavour is not None:
                self._attributes = flavour, qos
            flavour = topics.command_push_of(topic_filter)
            if flavour is not None:
                self._commands = flavour, qos
        interest = Interest.NOTHING
        if self._attributes is not None:
            interest |= Interest.ATTRIBUTES
        if self._commands is not None:
            interest |= Interest.COMMANDS
        if self._downlinks.interest(self._identity.device_id, self) not in (None, interest):
            self._downlinks.open(self._identity.device_id, self, interest)

    # -- core.downlinks.Downlink ------------------------------------------------------------------

    def attributes_changed(self, change: AttributesChange) -> None:
        if self._attributes is None:
            return
        flavour, qos = self._attributes
        own = self._identity.options.attributes_subscribe_topic
        topic = own if flavour is Flavour.V1 else topics.ATTRIBUTES_PUSH[flavour]
        device = self._identity.device_name
        try:
            payload = downlink_codec(self._identity, flavour).render_attributes_change(change)
        except PlatformError as error:
            log.warn("A change of attributes of {device} cannot be written: {error}", device=device, error=str(error))
            return
        if not self._publish(topic, payload, qos, None):
            log.warn("A change of attributes of {device} was not sent", device=device)

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        if self._commands is None:
            delivery.failed()
            return
        flavour, qos = self._commands

        def fate(is_accepted: bool) -> None:
            delivery.delivered() if is_accepted else delivery.failed()

        try:
            payload = downlink_codec(self._identity, flavour).render_command(command, with_id=False)
        except PlatformError as error:
            log.warn("A command for {device} cannot be written: {error}", device=self._identity.device_name,
                     error=str(error))  # fmt: skip
            delivery.failed()
            return
        if not self.send(topics.command_topic(flavour, command.number), payload, qos, fate):
            delivery.failed()

    def send(self, topic: str, payload: bytes, qos: int, fate: Callable[[bool], None] | None) -> bool:
        """Sends a message; its fate is known with the acknowledgement, for QoS 0 at once. False: it was dropped."""
        receipt = Receipt(fate) if qos and fate is not None else None
        if not self._publish(topic, payload, qos, receipt):
            return False
        if receipt is not None:
            self._awaited.add(receipt)
        elif fate is not None:
            fate(True)
        return True

    def ended(self, why: Ending) -> None:
        self._end(why)

    # -- acknowledgements -------------------------------------------------------------------------

    def acknowledged(self, receipt: Receipt, *, is_accepted: bool) -> None:
        """The client has answered a command's PUBLISH."""
        if receipt in self._awaited:
            self._awaited.discard(receipt)
            receipt.fate(is_accepted)

    def close(self) -> None:
        """The session is over; what was not acknowledged has failed."""
        self._downlinks.close(self._identity.device_id, self)
        waiting, self._awaited = self._awaited, set()
        for receipt in waiting:
            receipt.fate(False)


def uplink_codec(identity: Identity, flavour: Flavour) -> Codec:
    """What the device sends: `/j` is JSON, `/p` protobuf, everything else as the profile says (section 2.11)."""
    if flavour is Flavour.V2_JSON:
        return JSON
    return identity.options.protobuf_codec if flavour is Flavour.V2_PROTOBUF else identity.options.codec


def downlink_codec(identity: Identity, flavour: Flavour) -> Codec:
    """What goes to the device; on v1 topics the profile may ask for JSON although the device sends protobuf."""
    return identity.options.v1_downlink_codec if flavour is Flavour.V1 else uplink_codec(identity, flavour)
