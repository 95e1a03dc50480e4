"""Calls of devices to the server: what the core answers itself, and methods that operators bind to webhooks.

Source: wire-contract.md section 2.9 (`getSessionLimits`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud_core.model import Identity, ServerMethod
from cloud_core.storage.interface import Done, Store
from shared.messages import RpcRequest


class ServerMethods:
    """`call` always ends in JSON for the device: an answer, or `{"error": "…"}` that says what to do."""

    def __init__(
        self,
        *,
        store: Store,
        now_ms: Callable[[], int],
        session_limits: Callable[[Identity], dict[str, Any]],
        post: Callable[[ServerMethod, bytes, Callable[[bytes | None], None]], None],
    ) -> None:
        """`session_limits` makes the answer to `getSessionLimits`. `post` sends a webhook's body and calls back with
        the answer's body, or None when it failed or took longer than the method's timeout."""
        self._store = store
        self._now_ms = now_ms
        self._session_limits = session_limits
        self._post = post

    def call(self, identity: Identity, request: RpcRequest, done: Done[Any]) -> None:
        """The answer as JSON in Python's terms; NotAuthorized."""
        raise NotImplementedError

    def bind(self, method: ServerMethod, done: Done[None]) -> None:
        """Binds a method to a webhook, in place of any binding it had; InvalidArgument."""
        raise NotImplementedError

    def unbind(self, tenant_id: int, method: str, done: Done[None]) -> None:
        """NotFound."""
        raise NotImplementedError

    def bound(self, tenant_id: int, done: Done[list[ServerMethod]]) -> None:
        raise NotImplementedError
