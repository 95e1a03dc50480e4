"""What the code of a label says, and the code as a square of modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cloud_core.core.labels import datamatrix
from cloud_core.core.labels.datamatrix import Matrix, TooLong
from shared.credentials import AccessToken, Credentials, MqttBasic, X509Certificate

QR, DATA_MATRIX = "qr", "datamatrix"
NAME, PROVISIONING = "name", "provisioning"
QUIET_MODULES = {QR: 4, DATA_MATRIX: datamatrix.QUIET_MODULES}
_DIGITS, _ALPHANUMERIC = frozenset("0123456789"), frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")


def content_of(name: str, *, provision_key: str | None = None, credentials: Credentials | None = None) -> str:
    """The name alone, or JSON with the names of a provision request where there is more to say."""
    members: dict[str, Any] = {"deviceName": name}
    if provision_key is not None:
        members["provisionDeviceKey"] = provision_key
    if credentials is not None:
        members |= _secrets(credentials)
    if len(members) == 1:
        return name
    return msgspec.json.encode(members).decode()


def _secrets(credentials: Credentials) -> dict[str, str]:
    """Source: wire-contract.md section 1.2. A certificate is no secret, and its key is the device's own."""
    match credentials:
        case AccessToken(token):
            return {"token": token}
        case MqttBasic(client_id, username, password):
            parts = {"clientId": client_id, "username": username, "password": password}
            return {member: part for member, part in parts.items() if part}
        case X509Certificate():
            return {}


def encoder_of(kind: str) -> Callable[[str], Matrix]:
    """Makes codes of one kind, for one set of labels. It raises: TooLong."""
    return _QrEncoder() if kind == QR else datamatrix.encoded


class _QrEncoder:
    """QR codes of error correction M.

    The mask that suits the first code of a size best is used for all of it: the labels of a set look alike, and to try
    all eight takes ten times as long as the code.
    """

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}  # by version

    def __call__(self, text: str) -> Matrix:
        from reportlab.graphics.barcode import qrencoder

        code = qrencoder.QRCode(None, qrencoder.QRErrorCorrectLevel.M)
        code.addData(_data(qrencoder, text))
        code.version = code.calculate_version()
        blocks = qrencoder.QRRSBlock.getRSBlocks(code.version, qrencoder.QRErrorCorrectLevel.M)
        (data,) = code.dataList
        if 4 + data.getLengthBits(code.version) + data.bitlength > 8 * sum(block.dataCount for block in blocks):
            raise TooLong
        if code.version not in self._masks:
            self._masks[code.version] = code.getBestMaskPattern()
        code.makeImpl(False, self._masks[code.version])
        return tuple(tuple(bool(module) for module in row) for row in code.modules)


def _data(qrencoder: Any, text: str) -> Any:  # Any: reportlab is untyped
    if _DIGITS.issuperset(text):
        return qrencoder.QRNumber(text)
    if _ALPHANUMERIC.issuperset(text):
        return qrencoder.QRAlphaNum(text)
    return qrencoder.QR8bitByte(text)
