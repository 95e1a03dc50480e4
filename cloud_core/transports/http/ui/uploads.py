"""How large the forms of pages may be, asked when their head is in; files of devices are larger than all else."""

from __future__ import annotations

import re
from typing import Any

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.intake import BodyLimit
from cloud_core.transports.http.rest.bulk_routes import MAX_FILE_BYTES
from cloud_core.transports.http.rest.uploads import OVERHEAD_BYTES
from cloud_core.transports.http.ui.visits import MAX_FORM_BYTES, PATH, check_site, token_of
from shared.errors import NotAuthorized

_PAGES = f"{PATH}/".encode()
_UPLOAD = re.compile(rb"/ui/imports/new/?(?:\?.*)?")


def with_pages(limit: BodyLimit, admin: AdminApi) -> BodyLimit:
    """As `limit`, and for pages by the login in the cookies."""

    def limited(request: Any, method: bytes, path: bytes) -> int:
        if not path.startswith(_PAGES):
            return limit(request, method, path)
        check_site(request)
        operator = admin.operator(token_of(request))
        if method != b"POST" or not _UPLOAD.fullmatch(path):
            return MAX_FORM_BYTES
        if not operator.may(Act.IMPORT_DEVICES):
            raise NotAuthorized("Your role does not allow this")
        return MAX_FILE_BYTES + OVERHEAD_BYTES

    return limited
