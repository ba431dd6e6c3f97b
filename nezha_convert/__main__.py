"""``python -m nezha_convert`` and the program nezha-convert."""

from .cli.process import prepare


def main() -> None:
    """Run the command line; what takes time is imported once signals are minded."""
    prepare()
    from .cli import app as cli

    cli.main()


if __name__ == "__main__":
    main()
