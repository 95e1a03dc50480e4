"""The device API on klein: what the fast front does not take, and everything when it is off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.http import Request

from cloud_core.model import PresentedChain
from cloud_core.transports.http.adapter import MAX_BODY_BYTES, HttpDeviceAdapter
from cloud_core.transports.http.answers import JSON_TYPE, Caller
from cloud_core.transports.http.calls import address_of, raw_body, refuse, rest_app
from cloud_core.transports.http.downloads import Download, disposition, header_name, media_type
from cloud_core.transports.http.long_polls import INTERESTS, LongPoll
from shared.errors import PlatformError, RequestTooLarge

log = Logger()


class DeviceRoutes:
    """Routes under `/api/v1`, with an access token in the path or, without, for the connection's certificate."""

    app = rest_app()

    def __init__(self, adapter: HttpDeviceAdapter) -> None:
        self._adapter = adapter

    @app.route("/provision", methods=["POST"])
    def provision(self, request: Request) -> Any:
        return _answered(request, self._adapter.provision)

    @app.route("/<token>/telemetry", methods=["POST"])
    @app.route("/telemetry", methods=["POST"])
    def telemetry(self, request: Request, token: str | None = None) -> Any:
        return self._post(request, token, "telemetry")

    @app.route("/<token>/attributes", methods=["POST"])
    @app.route("/attributes", methods=["POST"])
    def attributes(self, request: Request, token: str | None = None) -> Any:
        return self._post(request, token, "attributes")

    @app.route("/<token>/claim", methods=["POST"])
    @app.route("/claim", methods=["POST"])
    def claim(self, request: Request, token: str | None = None) -> Any:
        return self._post(request, token, "claim")

    @app.route("/<token>/rpc", methods=["POST"])
    @app.route("/rpc", methods=["POST"])
    def call(self, request: Request, token: str | None = None) -> Any:
        return self._post(request, token, "rpc")

    @app.route("/<token>/rpc/<request_id>", methods=["POST"])
    @app.route("/rpc/<int:request_id>", methods=["POST"])
    def reply(self, request: Request, request_id: str | int, token: str | None = None) -> Any:
        return self._post(request, token, f"rpc/{request_id}")

    @app.route("/<token>/attributes", methods=["GET"])
    @app.route("/attributes", methods=["GET"])
    def read_attributes(self, request: Request, token: str | None = None) -> Any:
        exchange = Exchange(request)
        self._adapter.get_attributes(_caller(request, token), _query(request), address_of(request), exchange)
        return exchange.done

    @app.route("/<token>/rpc", methods=["GET"])
    @app.route("/rpc", methods=["GET"])
    def commands(self, request: Request, token: str | None = None) -> Any:
        return self._wait(request, token, "rpc")

    @app.route("/<token>/attributes/updates", methods=["GET"])
    @app.route("/attributes/updates", methods=["GET"])
    def attribute_updates(self, request: Request, token: str | None = None) -> Any:
        return self._wait(request, token, "attributes/updates")

    @app.route("/<token>/firmware", methods=["GET"])
    @app.route("/firmware", methods=["GET"])
    def firmware(self, request: Request, token: str | None = None) -> Any:
        return self._download(request, token, "firmware")

    @app.route("/<token>/software", methods=["GET"])
    @app.route("/software", methods=["GET"])
    def software(self, request: Request, token: str | None = None) -> Any:
        return self._download(request, token, "software")

    def _post(self, request: Request, token: str | None, feature: str) -> Any:
        return _answered(
            request,
            lambda body, address, answer: self._adapter.post(_caller(request, token), feature, body, address, answer),
        )

    def _wait(self, request: Request, token: str | None, feature: str) -> Deferred[bytes]:
        exchange = Exchange(request)
        poll = LongPoll(INTERESTS[feature], exchange)
        request.notifyFinish().addCallbacks(lambda _: poll.written(), lambda _: poll.abandon())
        self._adapter.wait(poll, _caller(request, token), _query(request), address_of(request))
        return exchange.done

    def _download(self, request: Request, token: str | None, feature: str) -> Deferred[bytes]:
        exchange = Exchange(request)
        self._adapter.download(
            _caller(request, token), feature, _query(request), address_of(request), exchange, exchange.stream
        )
        return exchange.done


class Exchange:
    """Carries an answer of the adapter into a klein request; an `Answer`."""

    def __init__(self, request: Any) -> None:  # Any: Request, of which mypy reads too little
        self._request = request
        self.done: Deferred[bytes] = Deferred()  # klein cancels it when the client goes away

    def __call__(
        self, status: int, body: bytes, retry_after_s: int | None = None, content_type: bytes = JSON_TYPE
    ) -> None:
        if self.done.called:
            return
        request = self._request
        request.setResponseCode(status)
        request.setHeader("Content-Length", str(len(body)))  # small devices cannot read chunks
        if body:
            request.setHeader("Content-Type", content_type)
        else:
            request.responseHeaders.removeHeader("content-type")
        if retry_after_s is not None:
            request.setHeader("Retry-After", str(retry_after_s))
        self.done.callback(body)

    def stream(self, download: Download) -> None:
        """Answers with a package, block by block as the client reads."""
        if self.done.called:
            return
        request = self._request
        request.setHeader("Content-Type", media_type(download.content_type))
        request.setHeader("Content-Length", str(download.length_bytes))
        request.setHeader("Content-Disposition", disposition(download.file_name))
        request.setHeader("x-filename", header_name(download.file_name))
        request.notifyFinish().addErrback(lambda _: download.stopProducing())
        request.registerProducer(download, True)
        download.send(request.write, self._streamed)

    def _streamed(self, error: PlatformError | None) -> None:
        self._request.unregisterProducer()
        if error is None:
            self.done.callback(b"")
        else:  # the head is out: only a short body can say it
            log.warn("A package was not sent whole: {error}", error=str(error))
            self._request.loseConnection()


def _answered(request: Any, start: Callable[[bytes, str, Exchange], None]) -> Any:  # Any: as in `Exchange`
    """Runs one adapter method that takes a body for a klein request."""
    try:
        body = raw_body(request, MAX_BODY_BYTES)
    except RequestTooLarge as error:
        refused = refuse(request, error)
        request.setHeader("Content-Length", str(len(refused)))
        return refused
    exchange = Exchange(request)
    start(body, address_of(request), exchange)
    return exchange.done


def _caller(request: Any, token: str | None) -> Caller:
    """Who asks: by the token of the path, else by the certificate of the connection."""
    if token is not None:
        return token.replace("%", "%25")  # klein has unquoted it; the adapter does so once
    chain: PresentedChain | None = getattr(request.channel.transport, "chain", None)  # without TLS there is none
    return chain


def _query(request: Any) -> str:
    """What follows the "?", as it was sent."""
    text: str = request.uri.partition(b"?")[2].decode("ascii", "replace")
    return text


def _without_head(app: Klein) -> None:
    """HEAD is no method of the device API (section 3.1); werkzeug adds it to whatever has GET."""
    for rule in app.url_map.iter_rules():
        if rule.methods is not None:
            rule.methods.discard("HEAD")


_without_head(DeviceRoutes.app)
