"""Commands (RPC) for the gateway itself: a table of methods. None of them runs programs or changes the software."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.logger import Logger

from edge_gateway.core.sub_devices import RenameRefused, SubDevices
from edge_gateway.model import Json

REQUEST = "v1/devices/me/rpc/request/"
RESPONSE = "v1/devices/me/rpc/response/"
MAX_LISTED = 1_000  # devices in one answer
MAX_RENAMED = 1_000  # in one command

REFUSED = {
    "gateway_update": "the gateway is updated by the package manager of its machine, not from here",
    "gateway_reboot": "the machine is restarted on site or by its own management, not from here",
    "gateway_shell": "the gateway has no remote shell",
    "getTermInfo": "the gateway has no remote shell",
    "sendCommand": "the gateway has no remote shell",
}


class MethodFailed(Exception):
    """`str()` is the answer to the caller."""


class GatewayMethods:
    """Answers commands for the gateway. `may_remove_credentials` is whether the configuration lets the gateway get new
    ones (`[core.provision] again`); `remove_credentials()` and `restart()` are carried out after the answer."""

    _log = Logger()

    def __init__(
        self,
        *,
        sub_devices: SubDevices,
        urgent: Callable[[str, bytes], bool],
        snapshot: Callable[[], dict[str, Json]],
        version: str,
        restart: Callable[[], None],
        remove_credentials: Callable[[], None],
        may_remove_credentials: bool,
    ) -> None:
        self._sub_devices = sub_devices
        self._urgent = urgent
        self._snapshot = snapshot
        self._version = version
        self._restart = restart
        self._remove_credentials = remove_credentials
        self._may_remove_credentials = may_remove_credentials
        self._after: Callable[[], None] | None = None
        self._methods: dict[str, Callable[[Json], Json]] = {
            "gateway_ping": lambda params: {"success": True, "resp": "pong"},
            "gateway_version": lambda params: {"success": True, "resp": self._version},
            "gateway_stats": lambda params: {"success": True, "resp": self._snapshot()},
            "gateway_devices": self._list_devices,
            "gateway_device_renamed": self._rename,
            "gateway_device_deleted": self._delete,
            "gateway_restart": self._restart_later,
            "gateway_remove_provisioned_credentials": self._remove_credentials_later,
        }

    @property
    def names(self) -> list[str]:
        """The methods that are carried out."""
        return sorted(self._methods)

    def received(self, topic: str, payload: bytes) -> bool:
        """A message of the core; False when it is none of ours."""
        number = topic.removeprefix(REQUEST)
        if number == topic or not number.isdecimal():
            return False
        self._urgent(RESPONSE + number, msgspec.json.encode(self._answer(payload)))
        after, self._after = self._after, None
        if after is not None:
            after()
        return True

    def _answer(self, payload: bytes) -> Json:
        try:
            document = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return failed("the command is no JSON")
        method = document.get("method") if isinstance(document, dict) else None
        if not isinstance(method, str):
            return failed("the command has no method")
        if method in REFUSED:
            return failed(REFUSED[method])
        carry_out = self._methods.get(method)
        if carry_out is None:
            return failed(f"the gateway does not know {method[:100]!r}; it knows {', '.join(self.names)}")
        self._log.info("the core asks for {method}", method=method)
        try:
            return carry_out(document.get("params"))
        except (MethodFailed, RenameRefused) as error:
            return failed(str(error))

    def _list_devices(self, params: Json) -> Json:
        """Name at the core -> connector, as thingsboard-gateway answers, the first `MAX_LISTED` of them."""
        listing = self._sub_devices.listing()
        devices = {device.upstream_name: device.connector for device, _ in listing[:MAX_LISTED]}
        return {"success": True, "resp": devices, "count": len(listing)}

    def _rename(self, params: Json) -> Json:
        is_table = isinstance(params, dict) and 0 < len(params) <= MAX_RENAMED
        if not is_table or not all(isinstance(name, str) for name in params.values()):
            raise MethodFailed(f'params must be {{"old name": "new name"}}, at most {MAX_RENAMED}')
        self._sub_devices.renamed(params)
        return {"success": True}

    def _delete(self, params: Json) -> Json:
        if not isinstance(params, str):
            raise MethodFailed("params must be the name of the device")
        self._sub_devices.deleted(params)
        return {"success": True}

    def _restart_later(self, params: Json) -> Json:
        self._after = self._restart
        return {"success": True}

    def _remove_credentials_later(self, params: Json) -> Json:
        if not self._may_remove_credentials:
            raise MethodFailed(
                'refused: [core.provision] again = "never", so the gateway could not get new credentials'
            )
        self._after = self._remove_credentials
        return {"success": True}


def failed(error: str) -> Json:
    """The answer for what was not carried out."""
    return {"success": False, "error": error}
