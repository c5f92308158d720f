"""The pages' templates."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Everything is escaped, and a name that is missing is an error."""
    return Environment(
        loader=PackageLoader("overparam.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
