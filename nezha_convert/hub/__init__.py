"""The Hugging Face Hub: addresses, downloads, commits in one piece, and its refusals in plain words."""

from .client import SCHEME, Address, Hub, Pulled, Pushed, PushedFile, is_address, local_source, nbytes_of
from .refusals import seconds_to_wait

__all__ = [
    "SCHEME",
    "Address",
    "Hub",
    "Pulled",
    "Pushed",
    "PushedFile",
    "is_address",
    "local_source",
    "nbytes_of",
    "seconds_to_wait",
]
