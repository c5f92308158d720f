"""The templates of the page and of the card, and how they write numbers."""

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from overparam.report import written

WRITTEN = (written.averaged, written.effect, written.percent, written.plain, written.points, written.sentence)
FILTERS = {f.__name__: f for f in (*WRITTEN, written.size, written.stem, written.unit)} | {"p": written.p_value}


def template(name: str) -> Template:
    """A template of this folder. Everything is escaped, and a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("overparam.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment.get_template(name)
