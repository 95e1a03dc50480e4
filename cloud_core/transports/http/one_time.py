"""Secrets that are shown once, on their way out: as fast as the client reads, and on record before they are complete.

Source of the rule: `core/bulk/manifest.py`.
"""

from __future__ import annotations

from contextlib import aclosing

from twisted.internet.defer import CancelledError
from twisted.web.http import Request

from cloud_core.core.bulk.manifests import OneTime
from cloud_core.transports.http.streaming import Outflow, cut, unregister


async def send_once(request: Request, download: OneTime, headers: dict[str, str]) -> None:
    """Sends the download. Whatever keeps its last piece from being handed to the connection gives it back.

    Raises: InvalidArgument, Unavailable while nothing has been sent; later the connection is cut.
    """
    flow = Outflow()
    is_out = is_begun = False

    def write(piece: bytes) -> None:
        nonlocal is_begun
        if not is_begun:
            is_begun = True
            for name, value in headers.items():
                request.setHeader(name, value)
        request.write(piece)

    request.registerProducer(flow, True)
    try:
        async with aclosing(download.pieces()) as pieces:
            async for piece in pieces:
                write(piece)
                await flow.ready()
        await download.take()
        write(download.last)
        is_out = True
    except CancelledError:  # the client is gone
        raise
    except Exception as error:
        if not is_begun:
            raise
        await cut(request, error)
    finally:
        if not is_out:
            download.give_back()
        unregister(request)
