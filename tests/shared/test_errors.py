"""The taxonomy of refusals: its leaves, their texts and what a peer sees of them."""

from __future__ import annotations

import pytest

from shared import errors
from shared.errors import (
    FAILURE_TEXT,
    NOT_FOUND_TEXT,
    PlatformError,
    ProvisionRefused,
    ProvisionStatus,
    Reason,
    leaf_classes,
    status_of,
)

BY_NAME = pytest.mark.parametrize("leaf", sorted(leaf_classes(), key=str))


def test_every_reason_belongs_to_exactly_one_refusal() -> None:
    reasons = [leaf.reason for leaf in leaf_classes()]
    assert sorted(reasons) == sorted(Reason)


def test_the_leaves_are_the_classes_of_this_module() -> None:
    assert {leaf.__module__ for leaf in leaf_classes()} == {errors.__name__}
    assert ProvisionRefused not in leaf_classes()


@BY_NAME
def test_a_refusal_without_detail_shows_its_public_text(leaf: type[PlatformError]) -> None:
    error = leaf()
    assert error.public_text
    assert str(error) == error.public_text
    assert (error.detail, error.ref, error.retry_after_s) == ("", None, None)


@BY_NAME
def test_a_detail_replaces_the_text_but_not_the_public_text(leaf: type[PlatformError]) -> None:
    error = leaf("what to do", retry_after_s=1.5)
    assert str(error) == error.detail == "what to do"
    assert error.public_text == leaf.public_text
    assert error.retry_after_s == 1.5


@pytest.mark.parametrize("leaf", sorted(leaf_classes(ProvisionRefused), key=str))
def test_a_refused_provision_request_has_one_of_thingsboards_two_texts(leaf: type[ProvisionRefused]) -> None:
    expected = {ProvisionStatus.NOT_FOUND: NOT_FOUND_TEXT, ProvisionStatus.FAILURE: FAILURE_TEXT}
    assert leaf.public_text == expected[leaf.status]
    assert leaf.seed_text not in expected.values()


@BY_NAME
def test_only_unknown_provision_data_is_not_found(leaf: type[PlatformError]) -> None:
    hidden = {errors.InvalidProvisionCredentials, errors.ProvisioningDisabled}
    expected = ProvisionStatus.NOT_FOUND if leaf in hidden else ProvisionStatus.FAILURE
    assert status_of(leaf()) is expected
