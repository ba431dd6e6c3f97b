"""What a visitor may use. The page shows these numbers before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes and times in seconds, for a free Space: 2 processors, 16 GB of memory, 50 GB of disk.

    NEZHA-large with its optimizer is a TensorFlow checkpoint of 4.0 GB, NEZHA-base one of 1.2 GB.

    Attributes:
        upload_bytes: of one visitor's files together.
        download_bytes: of what is fetched from the Hub.
        folder_bytes: of everything that a visitor's jobs have on the disk.
        free_bytes: what must stay free on the disk, whoever asks.
        memory_bytes: of one job.
        job_seconds: how long a job may take.
        kept_seconds: after how long without a click everything of a visitor is deleted.
        sweep_seconds: how often that is looked after.
        jobs: how many run at once; the others wait in a queue.
        waiting: how many may wait.
        visitors: how many folders there are at once.
        files: how many files a visitor may upload.
    """

    upload_bytes: int = 2_000_000_000
    download_bytes: int = 5_000_000_000
    folder_bytes: int = 15_000_000_000
    free_bytes: int = 2_000_000_000
    memory_bytes: int = 6_000_000_000
    job_seconds: int = 900
    kept_seconds: int = 3600
    sweep_seconds: int = 60
    jobs: int = 2
    waiting: int = 20
    visitors: int = 100
    files: int = 100
