"""Files on a disk: staging, locks, JSON, hashes."""
