"""Annotations of shapes are checked in all tests, whoever defines the function."""

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from helpers.shapes import CALLS, EACH, check_next_calls, checked
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model import precision


@checked
def shorter(x: Float[Tensor, " n"], by: int) -> Float[Tensor, " n"]:
    return x[by:]


def inner():
    @checked
    def shorter(x: Float[Tensor, " n"], by: int) -> Float[Tensor, " n"]:
        return x[by:]

    return shorter


@pytest.mark.parametrize("function", [shorter, inner()], ids=["module", "inside"])
def test_a_wrong_shape_is_an_error_in_each_of_the_first_calls(function):
    x = torch.ones(3)
    for _ in range(EACH - 1):
        assert function(x, 0) is not None
    with pytest.raises(BeartypeCallHintViolation):
        function(x, 1)
    assert function(x, 1).shape == (2,)  # no more checks in this test
    check_next_calls()
    with pytest.raises(BeartypeCallHintViolation):
        function(x, 1)


def test_functions_that_one_line_defines_share_its_checks():
    for _ in range(EACH):
        inner()(torch.ones(3), 0)
    assert inner()(torch.ones(3), 1).shape == (2,)


def test_no_test_checks_more_calls_than_it_may():
    functions = [checked(fresh()) for _ in range(CALLS + 1)]
    for function in functions[:CALLS]:
        function(torch.ones(3), 0)
    assert functions[CALLS](torch.ones(3), 1).shape == (2,)


def fresh():
    """A function with code of its own."""
    names = {"__name__": __name__, "Float": Float, "Tensor": Tensor}
    exec('def shorter(x: Float[Tensor, " n"], by: int) -> Float[Tensor, " n"]:\n    return x[by:]', names)
    return names["shorter"]


def test_functions_of_the_package_are_checked():
    assert precision.exact_product.__code__.co_name == "counted"
