"""`python -m overparam.cli` is the command line, as is `python -m overparam`."""

from overparam.cli.app import app

if __name__ == "__main__":
    app()
