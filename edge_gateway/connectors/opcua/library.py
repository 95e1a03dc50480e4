"""The only door to asyncua, whose own types are partial: here they are `Any`.

Import it only in what `OpcuaConnector.run` loads: the library is an extra, and takes a second to load."""

from __future__ import annotations

import importlib
import logging
from typing import Any, Final

# It logs each trouble with a traceback, and whole requests with passwords in them; we tell troubles ourselves.
logging.getLogger("asyncua").setLevel(logging.CRITICAL)

ua: Final[Any] = importlib.import_module("asyncua.ua")
Client: Final[Any] = importlib.import_module("asyncua").Client
security_policies: Final[Any] = importlib.import_module("asyncua.crypto.security_policies")
uacrypto: Final[Any] = importlib.import_module("asyncua.crypto.uacrypto")
data_type_to_variant_type: Final[Any] = importlib.import_module("asyncua.common.ua_utils").data_type_to_variant_type
