"""The first lines of a program that runs as on a machine without this project."""

WITHOUT_PACKAGES = """
import sys

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("nezha", "nezha_convert"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent)
for package in ("nezha", "nezha_convert"):
    try:
        __import__(package)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{package} is installed")
"""
"""It hides them from the import system itself: a path taken away would leave an ordinary installation in place."""
