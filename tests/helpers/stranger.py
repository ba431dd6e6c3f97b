"""The first lines of a program that runs as on a machine without some packages."""


def without(*names: str) -> str:
    """Lines that hide the modules `names`, and all modules in them, from the import system and from `find_spec`.

    A path taken away would leave an ordinary installation in place.
    """
    return f"""
import sys
from importlib.util import find_spec

class Hiding:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = any(name == one or name.startswith(one + ".") for one in {names!r})
        return None if hidden else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
for hidden in {names!r}:
    if find_spec(hidden) is not None:
        raise SystemExit(hidden + " is installed")
"""


WITHOUT_PACKAGES = without("nezha", "nezha_convert")
