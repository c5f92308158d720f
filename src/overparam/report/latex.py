"""Tables for LaTeX, with any engine, pdflatex too."""

import unicodedata
from collections.abc import Iterable, Sequence

from overparam.claims.verdict import Verdict
from overparam.report import tables, written


def latex(columns: Sequence[str], rows: Iterable[Sequence[str]], layout: str | None = None) -> str:
    """A booktabs table: the first column left, the others right, unless `layout` says otherwise."""
    head = " & ".join(escape(column) for column in columns)
    body = [" & ".join(escape(cell) for cell in row) + r" \\" for row in rows]
    layout = layout or "l" + "r" * (len(columns) - 1)
    top = [f"\\begin{{tabular}}{{{layout}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    # without rows no line, not even a blank one: TeX takes it for a row, in which no rule may stand
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def arms_latex(rows: Iterable[tables.Row]) -> str:
    """A row for each arm and level."""
    columns = ["Arm", "Level", "n ok/all", "Test accuracy (%)", "Train accuracy (%)", "Gap (points)", "Train loss"]
    cells = [
        [
            row["title"],
            row["level"],
            f"{row['n_ok']}/{row['n_all']}",
            f"{written.percent(row['test_accuracy'])} [{written.percent(row['test_accuracy_lower'])}, "
            f"{written.percent(row['test_accuracy_upper'])}]",
            written.percent(row["train_accuracy"]),
            written.points(row["gap"]),
            written.plain(row["train_loss"]),
        ]
        for row in rows
    ]
    return latex(columns, cells)


def verdicts_latex(verdicts: Iterable[Verdict]) -> str:
    """A row for each claim; p values are Holm's where the claim is confirmatory."""
    columns = ["Claim", "Verdict", "Estimate", "95 % interval", "Unit", "n", "p for", "p against"]
    cells = []
    for v in verdicts:
        estimand = v.claim.estimand
        unit = written.unit(estimand)
        found = v.interval.estimate, v.interval.lower, v.interval.upper
        estimate, low, high = (written.effect(x, unit) for x in found)
        adjusted = (v.p_holm, v.p_against_holm) if v.claim.confirmatory else (v.p, v.p_against)
        cells.append(
            [v.claim.sentence, v.verdict, estimate, f"[{low}, {high}]", unit, f"{v.n}", *map(written.p_value, adjusted)]
        )
    return latex(columns, cells, layout=r"p{0.4\linewidth}lrrlrrr")


GREEK = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ"

SIGNS = {
    "−": "-",
    "×": r"\times",
    "·": r"\cdot",
    "±": r"\pm",
    "½": r"\frac{1}{2}",
    "√": r"\surd",
    "∝": r"\propto",
    "≤": r"\leq",
    "≥": r"\geq",
    "≠": r"\neq",
    "≈": r"\approx",
    "→": r"\to",
    "∞": r"\infty",
    "∂": r"\partial",
    "‖": r"\|",
    "°": r"^{\circ}",
    "<": "<",
    ">": ">",
    "|": "|",
    **{c: f"^{{{digit}}}" for digit, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{c: f"_{{{digit}}}" for digit, c in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    "⁻": "^{-}",
}

TEXT = {
    "\\": r"\textbackslash{}",
    "^": r"\^{}",
    "~": r"\~{}",
    "[": "{[}",  # a row that begins with it would be an argument of the line break before
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "’": "'",
    "“": "``",
    "”": "''",
    "\N{NO-BREAK SPACE}": "~",
}

ACCENTS = dict(zip("\u0300\u0301\u0302\u0303\u0308\u030a\u030b\u030c\u0327", "`'^~\"rHvc", strict=True))


def escape(text: str) -> str:
    r"""`text` in text mode. Letters of other scripts stay as they are, and need an engine that has them.

    >>> escape("λmax ≤ 5 % of a_b²"), escape("Erdős–Rényi")
    ('$\\lambda$max $\\leq$ 5 \\% of a\\_b$^{2}$', "Erd\\H{o}s--R\\'{e}nyi")
    """
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in SIGNS:
        return f"${SIGNS[character]}$"
    if character in GREEK:
        return f"$\\{_greek(character)}$"
    if character in TEXT:
        return TEXT[character]
    if character in "&%$#_{}":
        return f"\\{character}"
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[1] in ACCENTS:
        return f"\\{ACCENTS[parts[1]]}{{{parts[0]}}}"
    return character


def _greek(letter: str) -> str:
    name = unicodedata.name(letter).split()[-1].replace("LAMDA", "LAMBDA")
    return name.lower() if letter.islower() else name.capitalize()
