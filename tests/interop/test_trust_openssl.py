"""Chains made with openssl's shortest recipes, as device makers make them."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from cloud_core.core.certificates import trust
from cloud_core.model import PresentedChain
from shared import certificates

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

KEYS = {
    "P-256": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "RSA": ["-newkey", "rsa:2048"],
}


class Recipes:
    """Each step is one command of a usual guide."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = KEYS[key]
        (folder / "ca.ext").write_text("basicConstraints=CA:TRUE\n")

    def root(self, name: str) -> None:
        self._run("req", "-x509", *self.key, "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                  "-out", f"{name}.pem")  # fmt: skip

    def signed(self, name: str, by: str, *further: str) -> None:
        self._run("req", "-new", *self.key, "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                  "-out", f"{name}.csr")  # fmt: skip
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial",
                  "-out", f"{name}.pem", *further)  # fmt: skip

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=20)

    def der(self, name: str) -> bytes:
        return certificates.der_of((self.folder / f"{name}.pem").read_text())


@pytest.mark.parametrize("key", KEYS)
def test_the_shortest_recipes_make_chains_that_are_trusted(tmp_path: Path, key: str) -> None:
    """Of version 1, without key identifiers, with BasicConstraints that are not critical."""
    made = Recipes(tmp_path, key)
    made.root("root")
    made.signed("line", "root", "-extfile", "ca.ext")
    made.signed("below-root", "root")
    made.signed("below-line", "line")
    now_ms = int(time.time() * 1000)
    root = certificates.load(made.der("root"))
    for name, shown, count in (("below-root", [], 2), ("below-line", ["line"], 3), ("below-line", ["root", "line"], 3)):
        chain = trust.parse(PresentedChain(made.der(name), tuple(map(made.der, shown))))
        assert len(trust.verify(chain, root, (), now_ms)) == count
