"""``python -m nezha_convert`` and the program nezha-convert."""

from .process import prepare


def main() -> None:
    """Run the command line; what takes time is imported once signals are minded."""
    prepare()
    from . import cli

    cli.main()


if __name__ == "__main__":
    main()
