"""The parameters that include and exclude choose."""

from __future__ import annotations

import pytest

from rigl_core.model.patterns import Choice

NAMES = ["encoder.weight", "decoder.weight", "bias"]


@pytest.mark.parametrize("default", [True, False, None])
def test_exclude_goes_before_include_and_both_before_the_default(default: bool | None) -> None:
    choice = Choice(["*coder.weight"], ["enc*"], NAMES)
    assert choice("encoder.weight", default=default) is False
    assert choice("decoder.weight", default=default) is True
    assert choice("bias", default=default) is default


def test_any_name_of_a_tied_parameter_counts() -> None:
    choice = Choice(["dec*"], ["bias"], NAMES)
    assert choice("encoder.weight", "decoder.weight", default=False) is True
    assert choice("decoder.weight", "bias", default=True) is False


@pytest.mark.parametrize("parameter", ["include", "exclude"])
def test_mistakes_name_the_parameter(parameter: str) -> None:
    for wrong, message in (("bias", "is the string 'bias'"), ([1], "holds 1"), (["x*"], r"holds the pattern 'x\*'")):
        patterns = {"include": (), "exclude": (), parameter: wrong}
        with pytest.raises((TypeError, ValueError), match=f"^{parameter} {message}"):
            Choice(patterns["include"], patterns["exclude"], NAMES)
