"""LaTeX that pdflatex can set."""

import pytest

from overparam.claims.estimand import level_text
from overparam.report import written
from overparam.report.latex import escape
from overparam.studies.catalogue import STUDIES


@pytest.mark.parametrize("name", STUDIES)
def test_all_that_the_studies_say_is_ascii(name: str) -> None:
    """pdflatex stops at the first letter or sign that its fonts lack."""
    designs = STUDIES[name].designs.values()
    said = [
        text for each in designs for claim in each.claims for text in (claim.sentence, written.unit(claim.estimand))
    ]
    said += [
        text
        for each in designs
        for arm in each.arms
        for text in (arm.title, *(level_text(x.value) for x in arm.levels))
    ]
    said += [written.effect(x, unit) for x in (-40.0, 0.5) for unit in ("factor", "points", "exponent", "%", "mean")]
    assert len(said) > 20
    assert [text for text in said if not escape(text).isascii()] == []


def test_greek_is_named_as_latex_names_it() -> None:
    assert escape("αβγδεζηθικλμνξπρστυφχψω").split("$")[1::2] == [
        *(r"\alpha", r"\beta", r"\gamma", r"\delta", r"\epsilon", r"\zeta", r"\eta", r"\theta", r"\iota", r"\kappa"),
        *(r"\lambda", r"\mu", r"\nu", r"\xi", r"\pi", r"\rho", r"\sigma", r"\tau", r"\upsilon", r"\phi", r"\chi"),
        *(r"\psi", r"\omega"),
    ]
    assert escape("ΔΘΛ") == r"$\Delta$$\Theta$$\Lambda$"


def test_signs_have_their_meaning() -> None:
    assert escape("a − b ≤ 2×c², 50 %") == r"a $-$ b $\leq$ 2$\times$c$^{2}$, 50 \%"
    assert escape(r"x_1^2 & {\a} [z]") == r"x\_1\^{}2 \& \{\textbackslash{}a\} {[}z]"
    assert escape("François Ångström, Łukasz") == r"Fran\c{c}ois \r{A}ngstr\"{o}m, Łukasz"
