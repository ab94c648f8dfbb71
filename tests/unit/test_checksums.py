"""Checksums of files, against published values."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsxsync import _core
from fsxsync.errors import LocalChanged
from fsxsync.model.checksum import Algorithm, Checksum
from fsxsync.transfer import checksums

BLOCK = 1 << 20
VECTORS = [
    # The check values of the catalogue of parametrised CRC algorithms, of the nine digits.
    (b"123456789", Algorithm.CRC64NVME, "ae8b14860a799888"),
    (b"123456789", Algorithm.CRC32C, "e3069283"),
    (b"123456789", Algorithm.CRC32, "cbf43926"),
    # RFC 3720 B.4: 32 bytes of zeros and of ones.
    (bytes(32), Algorithm.CRC32C, "8a9136aa"),
    (b"\xff" * 32, Algorithm.CRC32C, "62a8ab43"),
    # RFC 1321 A.5, FIPS 180's examples.
    (b"message digest", Algorithm.MD5, "f96b697d7cb7938d525a2f31aaf161d0"),
    (b"abc", Algorithm.SHA1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
    (b"abc", Algorithm.SHA256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    # Of nothing.
    (b"", Algorithm.CRC64NVME, "0000000000000000"),
    (b"", Algorithm.CRC32C, "00000000"),
    (b"", Algorithm.CRC32, "00000000"),
    (b"", Algorithm.MD5, "d41d8cd98f00b204e9800998ecf8427e"),
]


@contextmanager
def opened(directory: Path, data: bytes) -> Iterator[int]:
    path = directory / "file"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize(("data", "algorithm", "expected"), VECTORS)
def test_a_published_value(tmp_path: Path, data: bytes, algorithm: Algorithm, expected: str) -> None:
    with opened(tmp_path, data) as fd:
        assert checksums.compute(fd, len(data), algorithm).hex() == expected


# What the SDKs' own tests of flexible checksums send for "Hello world", in base64 as the headers have it.
SDKS = {
    Algorithm.CRC64NVME: "OOJZ0D8xKts=",
    Algorithm.CRC32C: "crUfeA==",
    Algorithm.CRC32: "i9aeUg==",
    Algorithm.SHA1: "e1AsOh9IyGCa4hLN+2Od7jlnP14=",
    Algorithm.SHA256: "ZOyIygCyaOW6GjVnihtTFtIS9PNmskdyMlNKiuyjfzw=",
}


@pytest.mark.parametrize("algorithm", SDKS)
def test_a_value_is_what_s3_is_sent(tmp_path: Path, algorithm: Algorithm) -> None:
    with opened(tmp_path, b"Hello world") as fd:
        assert base64.b64encode(checksums.compute(fd, 11, algorithm)).decode() == SDKS[algorithm]


REFERENCES: dict[Algorithm, Callable[[bytes], bytes]] = {
    Algorithm.CRC64NVME: lambda data: _core._crc64nvme_portable(data).to_bytes(8, "big"),
    Algorithm.CRC32C: lambda data: _slow_crc32c(data).to_bytes(4, "big"),
    Algorithm.CRC32: lambda data: zlib.crc32(data).to_bytes(4, "big"),
    Algorithm.MD5: lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
    Algorithm.SHA1: lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    Algorithm.SHA256: lambda data: hashlib.sha256(data).digest(),
}


def _slow_table() -> list[int]:
    table = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _slow_table()


def _slow_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("size", [1, 4095, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 77])
@pytest.mark.parametrize("algorithm", Algorithm)
def test_blocks_make_no_difference(tmp_path: Path, algorithm: Algorithm, size: int) -> None:
    data = os.urandom(size)
    with opened(tmp_path, data) as fd:
        assert checksums.compute(fd, size, algorithm) == REFERENCES[algorithm](data)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    with opened(tmp_path, data + b"more") as fd:
        assert checksums.compute(fd, size, algorithm) == REFERENCES[algorithm](data), "only size bytes count"


@pytest.mark.parametrize("have", [0, 100, BLOCK, BLOCK + 1])
@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_shorter_file_has_no_checksum(tmp_path: Path, algorithm: Algorithm, have: int) -> None:
    with opened(tmp_path, bytes(have)) as fd, pytest.raises(LocalChanged, match="shorter"):
        checksums.compute(fd, BLOCK + 2, algorithm)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_every_single_byte_counts(tmp_path: Path, algorithm: Algorithm) -> None:
    data = bytes(BLOCK + 3)
    with opened(tmp_path, data) as fd:
        right = Checksum(algorithm, checksums.compute(fd, len(data), algorithm))
        assert checksums.matches(fd, len(data), [right]) is True
    for position in (0, BLOCK - 1, BLOCK, BLOCK + 2):
        flipped = bytearray(data)
        flipped[position] ^= 1
        with opened(tmp_path, bytes(flipped)) as fd:
            assert checksums.matches(fd, len(data), [right]) is False


def test_nothing_to_compare_with_is_neither_yes_nor_no(tmp_path: Path) -> None:
    with opened(tmp_path, b"x") as fd:
        assert checksums.matches(fd, 1, []) is None
        assert checksums.matches(fd, 1, [Checksum(Algorithm.SHA1, b"too short")]) is None


def value_of(algorithm: Algorithm) -> bytes:
    return REFERENCES[algorithm](b"x")


@given(st.lists(st.sampled_from(Algorithm), min_size=1, unique=True))
def test_the_cheapest_is_chosen(told: list[Algorithm]) -> None:
    chosen = checksums.choose([Checksum(algorithm, value_of(algorithm)) for algorithm in told])
    assert chosen is not None
    order = list(Algorithm)
    assert chosen.algorithm is min(told, key=order.index)
    assert chosen.value == value_of(chosen.algorithm)


def test_a_value_of_another_length_is_passed_over() -> None:
    right = Checksum(Algorithm.SHA256, bytes(32))
    assert checksums.choose([Checksum(Algorithm.CRC64NVME, bytes(4)), right]) is right
    assert checksums.choose([Checksum(Algorithm.CRC32C, bytes(8))]) is None
    assert checksums.choose([]) is None
