"""What the core sends a device by itself: changes of shared attributes and commands (wire-contract.md 2.2, 2.8, 2.9).

Topic, encoding and QoS are those of the last subscription that turns the push on. How long an acknowledgement may take
is the core's business (`core.rpc`).
"""

from __future__ import annotations

from collections.abc import Callable

from cloud_core.core.downlinks import Delivery, Interest
from cloud_core.profile_options import ProfileOptions
from cloud_core.transports.mqtt.conversation import Conversation
from cloud_core.transports.mqtt.flavours import downlink_codec_of, has_codec
from shared import topics
from shared.errors import PlatformError
from shared.messages import AttributesChange, RpcCommand
from shared.mqtt.filters import matches
from shared.topics import Flavour, PushFlavours

_Way = tuple[Flavour, int]  # and QoS


class Pushes:
    """The ways by which one session hears what nobody asked for."""

    __slots__ = ("_attributes", "_commands")

    def __init__(self) -> None:
        self._attributes: _Way | None = None
        self._commands: _Way | None = None

    def follow(self, subscriptions: dict[str, int], options: ProfileOptions) -> Interest:
        """Takes the ways that the subscriptions (oldest first) open; what the core is to send by them.

        A flavour without codec in this profile opens none.
        """
        self._attributes = self._commands = None
        for topic_filter, qos in reversed(subscriptions.items()):
            flavours = _flavours(topic_filter, options)
            if self._attributes is None and flavours.attributes and has_codec(options, flavours.attributes):
                self._attributes = flavours.attributes, qos
            if self._commands is None and flavours.commands and has_codec(options, flavours.commands):
                self._commands = flavours.commands, qos
        interest = Interest.NOTHING
        if self._attributes is not None:
            interest |= Interest.ATTRIBUTES
        if self._commands is not None:
            interest |= Interest.COMMANDS
        return interest

    def attributes_changed(self, session: Conversation, change: AttributesChange) -> None:
        """As `Downlink.attributes_changed`."""
        if self._attributes is None:
            return
        flavour, qos = self._attributes
        topic = topics.attributes_topic(flavour)
        try:
            body = downlink_codec_of(session.device.options, flavour).render_attributes_change(change)
        except PlatformError as error:  # the encoding cannot express it
            session.unanswerable(topic, error)
            return
        session.publish(topic, body, qos)

    def command(self, session: Conversation, command: RpcCommand, delivery: Delivery) -> None:
        """As `Downlink.command`. QoS 1: delivered when acknowledged; QoS 0: when written."""
        if self._commands is None:
            delivery.failed()
            return
        flavour, qos = self._commands
        topic = topics.command_topic(flavour, command.number)
        try:
            body = downlink_codec_of(session.device.options, flavour).render_command(command, with_id=False)
        except PlatformError as error:
            session.unanswerable(topic, error)
            delivery.failed()
            return
        session.publish(topic, body, qos, _telling(delivery))


def _telling(delivery: Delivery) -> Callable[[bool], None]:
    def told(is_acknowledged: bool) -> None:
        if is_acknowledged:
            delivery.delivered()
        else:
            delivery.failed()

    return told


def is_own_attributes_filter(topic_filter: str, options: ProfileOptions) -> bool:
    """Whether it is the profile's own name for changes of attributes. They still come on the v1 topic, as from
    ThingsBoard."""
    return matches(options.attributes_subscribe_topic, topic_filter)


def _flavours(topic_filter: str, options: ProfileOptions) -> PushFlavours:
    flavours = topics.push_flavours(topic_filter)
    if is_own_attributes_filter(topic_filter, options):
        return PushFlavours(attributes=Flavour.V1, commands=flavours.commands)
    return flavours
