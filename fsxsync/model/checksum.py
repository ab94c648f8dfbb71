"""Checksums of whole objects, as stores tell them: what a file that was downloaded is compared with."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Algorithm(enum.Enum):
    """The values are S3's names, the cheapest to compute first (AWS: "Checking object integrity")."""

    CRC64NVME = "CRC64NVME"
    CRC32C = "CRC32C"
    CRC32 = "CRC32"
    MD5 = "MD5"
    """Not a checksum of S3's: the ETag of an object in one part that no key of its own encrypts."""
    SHA1 = "SHA1"
    SHA256 = "SHA256"


@dataclass(frozen=True, slots=True)
class Checksum:
    """``value`` is the digest, the highest byte first."""

    algorithm: Algorithm
    value: bytes

    def __str__(self) -> str:
        return f"{self.algorithm.value} {self.value.hex()}"
