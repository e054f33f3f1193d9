"""The error tree: what clients and waiters read from it."""

from http import HTTPStatus

import pytest

from raymaker.platform import errors
from raymaker.platform.errors import ApiError, ServiceUnavailable, UnknownOperation


def _tree(root: type[ApiError]) -> list[type[ApiError]]:
    return [root, *(deeper for child in root.__subclasses__() for deeper in _tree(child))]


@pytest.mark.parametrize("kind", _tree(errors.ClientError))
def test_errors_of_the_client_are_4xx_and_carry_their_message(kind):
    error = kind("the job x is not there; list the jobs that are")
    assert 400 <= error.status < 500
    assert error.message == str(error) == "the job x is not there; list the jobs that are"


@pytest.mark.parametrize("kind", _tree(errors.ServerError))
def test_errors_of_the_platform_are_5xx(kind):
    assert kind("sorry").status >= 500


def test_the_code_of_an_error_is_its_name_but_for_unknown_operations_whose_name_is_awss():
    assert errors.ValidationException("x").code == "ValidationException"
    assert errors.ResourceInUse("x").code == "ResourceInUse"
    assert UnknownOperation("x").code == "UnknownOperationException"


def test_an_unavailable_platform_says_when_to_come_again():
    error = ServiceUnavailable("locked", retry_after_s=3)
    assert (error.status, error.retry_after_s) == (HTTPStatus.SERVICE_UNAVAILABLE, 3)


def test_every_error_of_the_tree_stands_in_the_drawing_at_the_top():
    assert errors.__doc__ is not None
    drawn = errors.__doc__.split("PlatformError", 1)[1]
    assert [kind.__name__ for kind in _tree(ApiError) if kind.__name__ not in drawn] == []
