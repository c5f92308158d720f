"""Text as LaTeX sets it with any engine, pdflatex too."""

import unicodedata

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
    return "".join(map(_written, text))


def _written(character: str) -> str:
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
