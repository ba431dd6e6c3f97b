"""``python -m nezha_convert`` and the program nezha-convert."""

from .cli.process import prepare, starting


def main() -> None:
    """Run the command line. The imports that take time come after signals have their handlers."""
    prepare()
    with starting():
        from .cli import app

    app.main()


if __name__ == "__main__":
    main()
