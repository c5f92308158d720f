"""`python -m overparam` is the command line."""

from overparam.cli.app import app

if __name__ == "__main__":
    app()
