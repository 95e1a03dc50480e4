"""Calls and changes of shared attributes on their way to devices, by the topics that the maps say."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from edge_gateway.connectors.mqtt.routes import Downlink, Route, Routes, rendered
from edge_gateway.mapping.amounts import parse_duration
from edge_gateway.mapping.interface import MappingError
from edge_gateway.mapping.values import json_or_text
from edge_gateway.model import Call, CallFailed, Json
from shared.mqtt.filters import matches

Send = Callable[[str, str, bytes, bool], Awaitable[None]]
"""(device, topic, payload, retain): returns when the message has arrived. Raises: CallFailed."""


class _Pending:
    """A call that waits for its reply."""

    __slots__ = ("device", "reply")

    def __init__(self, device: str) -> None:
        self.device = device
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()


class Downlinks:
    """The way back to devices, for listener and client."""

    def __init__(self, routes: Routes, send: Send) -> None:
        self._routes = routes
        self._send = send
        self._pending: dict[str, deque[_Pending]] = {}  # by the topic of the reply
        self._last_id = 0
        self._reply_filters = [
            one.reply_filter for route in routes.all for one in route.rpc.values() if one.reply_filter
        ]
        self.filters = [
            one.filter
            for route in routes.all
            for one in (*route.rpc.values(), *([route.shared] if route.shared else []))
        ]

    # -- calls ------------------------------------------------------------------------------------

    async def call(self, call: Call) -> Json:
        """As `Connector.call`."""
        self._last_id += 1
        route, downlink, values = self._downlink_for(call)
        values |= {"id": self._last_id, "method": call.method}
        document = {"id": self._last_id, "method": call.method, "params": call.params, "device": call.device}
        try:
            topic = downlink.publish.render(values, document)
            payload = downlink.body.render(values, document).encode()
            reply_topic = downlink.reply.render(values, document) if downlink.reply else ""
        except MappingError as error:
            raise CallFailed(f"{call.method}: {error}") from error
        timeout_s = min(call.timeout_s, parse_duration(route.settings.rpc[call.method].timeout))
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(call, downlink, (topic, payload, reply_topic))
        except TimeoutError:
            what = f"no reply on {reply_topic}" if reply_topic else "the message was not acknowledged"
            raise CallFailed(f"{call.device}: {what} within {timeout_s:g} s") from None

    async def _exchange(self, call: Call, downlink: Downlink, message: tuple[str, bytes, str]) -> Json:
        topic, payload, reply_topic = message
        if not reply_topic:
            await self._send(call.device, topic, payload, False)
            return {"success": True}
        pending = _Pending(call.device)
        self._pending.setdefault(reply_topic, deque()).append(pending)
        try:
            await self._send(call.device, topic, payload, False)
            reply = json_or_text(await pending.reply)
        finally:
            self._forget(reply_topic, pending)
        return reply if downlink.answer is None else downlink.answer.first(reply)

    def _forget(self, reply_topic: str, pending: _Pending) -> None:
        waiting = self._pending.get(reply_topic)
        if waiting is not None and pending in waiting:
            waiting.remove(pending)
            if not waiting:
                del self._pending[reply_topic]

    def _downlink_for(self, call: Call) -> tuple[Route, Downlink, dict[str, Any]]:
        """The map with this method whose topic can be made for this device."""
        candidates = [route for route in self._routes.in_order_for(call.device) if call.method in route.rpc]
        if not candidates:
            known = sorted({name for route in self._routes.all for name in route.rpc})
            text = f"there is no method '{call.method}'"
            raise CallFailed(f"{text}; known are {', '.join(known)}" if known else f"{text}; no map has an rpc table")
        for route in candidates:
            values = self._routes.values_for(call.device, route)
            downlink = route.rpc[call.method]
            if values is not None and downlink.publish.names <= {*values, "id", "method"}:
                return route, downlink, values
        raise CallFailed(
            f"the topic of {call.device} is not known: it has said nothing since the gateway started,"
            " and its name does not tell what its topic is made of"
        )

    def take_reply(self, topic: str, payload: bytes, speaker: str = "") -> bool:
        """Whether a message is the reply to a call; `speaker` is the device of its login, when that is sure."""
        waiting = self._pending.get(topic)
        if not waiting or (speaker and waiting[0].device != speaker):
            return False
        pending = waiting[0]
        self._forget(topic, pending)
        if not pending.reply.done():
            pending.reply.set_result(payload)
        return True

    def is_reply_topic(self, topic: str) -> bool:
        """Whether replies come on such topics: one that nobody waits for comes too late."""
        return any(matches(one, topic) for one in self._reply_filters)

    # -- shared attributes ------------------------------------------------------------------------

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """As `Connector.attributes_changed`."""
        failures: list[str] = []
        for route in self._routes.all:
            if route.shared is None:
                continue
            known = self._routes.values_for(device, route)
            if known is None or not route.shared.publish.names <= {*known, "key"}:
                continue
            keys = route.settings.shared.keys if route.settings.shared else []
            wanted = {key: value for key, value in values.items() if not keys or key in keys}
            gone = [key for key in deleted if not keys or key in keys]
            failures += await self._publish_shared(device, route, known, wanted, gone)
        if failures:
            raise CallFailed("; ".join(failures))

    async def _publish_shared(
        self, device: str, route: Route, known: dict[str, Any], values: dict[str, Json], deleted: list[str]
    ) -> list[str]:
        """What failed."""
        shared, settings = route.shared, route.settings.shared
        assert shared is not None and settings is not None
        messages: list[tuple[str | None, bytes | None]] = []
        if "key" in shared.publish.names | shared.body.names:
            for key, value in values.items():
                place, document = known | {"key": key}, {"key": key, "value": value, "device": device}
                body = rendered(shared.body, place | {"value": value}, document)
                messages.append((rendered(shared.publish, place, document), None if body is None else body.encode()))
            messages += [(rendered(shared.publish, known | {"key": key}), b"") for key in deleted]
        else:
            topic = rendered(shared.publish, known, values)
            if values:
                body = rendered(shared.body, known, values)
                messages.append((topic, None if body is None else body.encode()))
            if deleted:
                messages.append((topic, msgspec.json.encode({"deleted": deleted})))
        failures = []
        for topic, payload in messages:
            if topic is None or payload is None:
                failures.append(f"{device}: a shared attribute does not fit the topic or body of its map")
                continue
            try:
                await self._send(device, topic, payload, settings.retain)
            except CallFailed as error:
                failures.append(str(error))
        return failures
