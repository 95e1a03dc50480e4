"""Subscriptions and polls of one connection.

`Any` stands for asyncua's objects, whose types are partial."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from typing import Any, Final

from edge_gateway.connectors.opcua.library import ua
from edge_gateway.connectors.opcua.link import Link, Lost, in_words
from edge_gateway.connectors.opcua.surveying import Point, PointKey
from edge_gateway.connectors.opcua.taking import Taking, enumeration
from edge_gateway.connectors.opcua.troubles import Troubles

_KEEP_ALIVE_S: Final = 10.0  # an empty notification at least so often
_LIFETIME_S: Final = 600.0  # how long the server keeps a subscription while we are congested
_MAX_NOTIFICATIONS: Final = 5_000  # of one message


class Watch:
    """Watches the points of `update`, until `close`."""

    def __init__(self, link: Link, taking: Taking, troubles: Troubles) -> None:
        self._link = link
        self._settings = link.settings
        self._taking = taking
        self._troubles = troubles
        self._points: dict[PointKey, Point] = {}
        self._subscription: int | None = None
        self._items: dict[PointKey, int] = {}  # the server's numbers
        self._by_handle: dict[int, Point] = {}  # by our numbers
        self._handles: dict[PointKey, int] = {}
        self._next_handle = 1
        self._polls: dict[float, asyncio.Task[None]] = {}
        self._heard_s = time.monotonic()
        self._patience_s = math.inf
        self._is_taking = False

    async def update(self, points: dict[PointKey, Point]) -> None:
        """From now on these. Raises: what the library raises."""
        gone = [key for key in self._points if key not in points]
        new = [point for key, point in points.items() if key not in self._points]
        await self._unsubscribe(gone)
        self._troubles.keep(PointKey, points)
        for key in gone:
            self._taking.names.pop(self._points[key], None)
        self._points = dict(points)
        await self._learn_names([point for point in new if point.line.is_text])
        await self._subscribe([point for point in new if not self._every_s(point)])
        for every_s in {self._every_s(point) for point in points.values()} - {0.0}:
            if every_s not in self._polls:
                self._polls[every_s] = asyncio.ensure_future(self._guarded(self._poll(every_s)))

    async def close(self) -> None:
        for task in self._polls.values():
            task.cancel()
        await asyncio.gather(*self._polls.values(), return_exceptions=True)

    def check(self) -> None:
        """Ends the connection when the subscription has fallen silent; to be called now and then."""
        silent_s = time.monotonic() - self._heard_s
        if self._subscription is not None and not self._is_taking and silent_s > self._patience_s:
            self._link.lose(f"the subscription is silent for {silent_s:.0f} s")

    def _every_s(self, point: Point) -> float:
        return point.line.every_s or self._settings.every

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """An error in the background ends the connection."""
        try:
            await work
        except Lost as error:
            self._link.lose(str(error))
        except (OSError, TimeoutError, ua.UaError) as error:
            self._link.lose(in_words(error, self._settings))
        except Exception as error:
            self._link.lose(f"what the server sent is not understood ({type(error).__name__})")

    async def _learn_names(self, points: list[Point]) -> None:
        if not points:
            return
        types = await self._link.read([point.key.node_id for point in points], ua.AttributeIds.DataType)
        for point, value in zip(points, types, strict=True):
            names = enumeration(value.Value.Value) if value.Value is not None else None
            if names is not None:
                self._taking.names[point] = names

    # --- polling ---------------------------------------------------------------------------------

    async def _poll(self, every_s: float) -> None:
        due_s = time.monotonic()
        while points := [point for point in self._points.values() if self._every_s(point) == every_s]:
            await self._taking.room()
            values = await self._link.read([point.key.node_id for point in points])
            await self._taking.accept(zip(points, values, strict=True))
            due_s = max(due_s + every_s, time.monotonic())
            await asyncio.sleep(due_s - time.monotonic())
        self._polls.pop(every_s, None)

    # --- subscribing -----------------------------------------------------------------------------

    async def _subscribe(self, points: list[Point]) -> None:
        if points and self._subscription is None:
            self._subscription = await self._create_subscription()
        for at in range(0, len(points), self._link.limits.items):
            await self._watch(points[at : at + self._link.limits.items])

    async def _create_subscription(self) -> int:
        publishing_s = self._settings.publishing
        keep_alive = max(1, round(_KEEP_ALIVE_S / publishing_s))
        parameters = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=publishing_s * 1000,
            RequestedMaxKeepAliveCount=keep_alive,
            RequestedLifetimeCount=max(3 * keep_alive, math.ceil(_LIFETIME_S / publishing_s)),
            MaxNotificationsPerPublish=_MAX_NOTIFICATIONS,
            PublishingEnabled=True,
        )
        self._heard_s = time.monotonic()
        result = await self._link.session.create_subscription(parameters, self._published)
        keep_alive_s = result.RevisedPublishingInterval / 1000 * result.RevisedMaxKeepAliveCount
        self._patience_s = 3 * max(keep_alive_s, 1.0) + self._settings.timeout
        return int(result.SubscriptionId)

    async def _watch(self, points: list[Point]) -> None:
        requests = []
        for point in points:
            handle, self._next_handle = self._next_handle, self._next_handle + 1
            self._by_handle[handle] = point
            self._handles[point.key] = handle
            requests.append(self._request(point, handle))
        parameters = ua.CreateMonitoredItemsParameters(
            SubscriptionId=self._subscription,
            TimestampsToReturn=ua.TimestampsToReturn.Both,
            ItemsToCreate=requests,
        )
        results = await self._link.session.create_monitored_items(parameters)
        for point, result in zip(points, results, strict=True):
            if result.StatusCode.is_good():
                self._items[point.key] = result.MonitoredItemId
                continue
            why = in_words(ua.UaStatusCodeError(result.StatusCode.value), self._settings)
            self._troubles.add(point.key, f"{point.source}: {why}")
            self._by_handle.pop(self._handles.pop(point.key), None)
            self._points.pop(point.key, None)  # the next survey tries it again

    def _request(self, point: Point, handle: int) -> Any:
        sampling_s = point.line.sampling_s if point.line.sampling_s is not None else self._settings.sampling
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=ua.ReadValueId(NodeId=point.key.node_id, AttributeId=ua.AttributeIds.Value),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=handle,
                SamplingInterval=-1.0 if sampling_s is None else sampling_s * 1000,
                QueueSize=self._settings.queue,
                DiscardOldest=True,
            ),
        )

    async def _unsubscribe(self, keys: list[PointKey]) -> None:
        numbers = [self._items.pop(key) for key in keys if key in self._items]
        for key in keys:
            self._by_handle.pop(self._handles.pop(key, 0), None)
        for at in range(0, len(numbers), self._link.limits.items):
            parameters = ua.DeleteMonitoredItemsParameters(
                SubscriptionId=self._subscription, MonitoredItemIds=numbers[at : at + self._link.limits.items]
            )
            await self._link.session.delete_monitored_items(parameters)

    async def _published(self, result: Any) -> None:
        """The library acknowledges to the server when this returns, and asks for the next message only then."""
        self._heard_s = time.monotonic()
        self._is_taking = True
        try:
            await self._guarded(self._take(result.NotificationMessage.NotificationData or []))
        finally:
            self._is_taking = False
            self._heard_s = time.monotonic()

    async def _take(self, notifications: list[Any]) -> None:
        for notification in notifications:
            if isinstance(notification, ua.StatusChangeNotification):
                raise Lost(f"the server ended the subscription ({notification.Status.name})")
            if isinstance(notification, ua.DataChangeNotification):
                values = [
                    (self._by_handle[item.ClientHandle], item.Value)
                    for item in notification.MonitoredItems
                    if item.ClientHandle in self._by_handle
                ]
                await self._taking.accept(values)
