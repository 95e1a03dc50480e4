"""The only importer of asyncua; imported itself only when a connector is built. Untyped here: the package does not say
what of its generated names it exports."""

from __future__ import annotations

from typing import Any

import asyncua.client.client
import asyncua.crypto.security_policies
import asyncua.crypto.uacrypto
import asyncua.ua
import asyncua.ua.uaerrors

ua: Any = asyncua.ua
Client: Any = asyncua.client.client.Client
CertProperties: Any = asyncua.crypto.uacrypto.CertProperties
policies: Any = asyncua.crypto.security_policies
UaError: type[Exception] = asyncua.ua.uaerrors.UaError
