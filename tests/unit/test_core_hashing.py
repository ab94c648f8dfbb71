"""fsxsync._core: XXH3-128 and CRC-64/NVME, against independent implementations."""

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash
from awscrt import checksums

from fsxsync import _core

CHECK_INPUT = b"123456789"
CHECK_VALUE = 0xAE8B14860A799888  # NVM Command Set Specification 1.0, figure 120

# around the table's step (8), a lane (16), the folded stride (128) and the release of the GIL (32 KiB)
LENGTHS = [*range(300), 1023, 1024, 1025, 4095, 32767, 32768, 32769, 1 << 20, (1 << 20) + 13]

RANDOM = random.Random(7)  # noqa: S311
DATA = RANDOM.randbytes((1 << 20) + 64)

CRCS = [_core.crc64nvme, _core._crc64nvme_portable]
RANGES: list[Callable[[int, int, int], object]] = [
    _core.xxh3_128_range,
    _core.crc64nvme_range,
    _core.hash_range,
    lambda fd, offset, length: _core.hash_parts(fd, offset, length, 4096),
]


@pytest.fixture
def data_fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


class TestBuffers:
    @pytest.mark.parametrize("crc", CRCS)
    def test_the_check_value_of_the_specification(self, crc: Callable[[bytes], int]) -> None:
        assert crc(CHECK_INPUT) == CHECK_VALUE

    @pytest.mark.parametrize("crc", CRCS)
    def test_crc_agrees_with_awscrt_at_every_length_and_alignment(self, crc: Callable[[memoryview], int]) -> None:
        view = memoryview(DATA)

        wrong = [
            (length, start)
            for length in LENGTHS
            for start in (0, 1, 7, 15)
            if crc(view[start : start + length]) != checksums.crc64nvme(DATA[start : start + length])
        ]

        assert not wrong

    def test_xxh3_agrees_with_xxhash_at_every_length(self) -> None:
        wrong = [n for n in LENGTHS if _core.xxh3_128(DATA[:n]) != xxhash.xxh3_128_digest(DATA[:n])]

        assert not wrong

    @pytest.mark.parametrize("crc", CRCS)
    def test_crc_continues_where_it_stopped(self, crc: Callable[..., int]) -> None:
        whole = crc(DATA)

        for cut in (0, 1, 127, 128, 129, 70_000, len(DATA)):
            assert crc(DATA[cut:], crc(DATA[:cut])) == whole

    @pytest.mark.parametrize("crc", CRCS)
    def test_crc_of_nothing_leaves_the_crc(self, crc: Callable[..., int]) -> None:
        assert crc(b"") == 0
        assert crc(b"", 2**64 - 1) == 2**64 - 1

    @pytest.mark.parametrize("wrap", [bytearray, memoryview])
    def test_any_contiguous_buffer_will_do(self, wrap: Callable[[bytes], bytearray | memoryview]) -> None:
        assert _core.crc64nvme(wrap(CHECK_INPUT)) == CHECK_VALUE
        assert _core.xxh3_128(wrap(CHECK_INPUT)) == _core.xxh3_128(CHECK_INPUT)

    @pytest.mark.parametrize("function", [_core.xxh3_128, *CRCS])
    @pytest.mark.parametrize("hostile", ["text", 1, None, [1, 2]])
    def test_what_is_no_buffer_is_refused(self, function: Callable[[object], object], hostile: object) -> None:
        with pytest.raises(TypeError):
            function(hostile)

    @pytest.mark.parametrize("function", [_core.xxh3_128, *CRCS])
    def test_a_buffer_with_gaps_is_refused(self, function: Callable[[memoryview], object]) -> None:
        with pytest.raises(BufferError):
            function(memoryview(DATA)[::2])

    @pytest.mark.parametrize("crc", [-1, 2**64])
    def test_a_crc_of_more_than_64_bits_is_refused_not_cut(self, crc: int) -> None:
        with pytest.raises(OverflowError):
            _core.crc64nvme(b"x", crc)
        with pytest.raises(OverflowError):
            _core.crc64nvme_combine(crc, 0, 1)
        with pytest.raises(OverflowError):
            _core.crc64nvme_combine(0, crc, 1)

    def test_a_buffer_is_given_back(self) -> None:
        data = bytearray(CHECK_INPUT)

        for function in (_core.xxh3_128, *CRCS):
            function(data)
        with pytest.raises(OverflowError):
            _core.crc64nvme(data, -1)

        data.append(0)  # BufferError if somebody still held a view


class TestCombine:
    def test_pieces_combine_to_the_crc_of_the_whole(self) -> None:
        whole = _core.crc64nvme(DATA)

        for cut in (0, 1, 8, 4097, 1 << 19, len(DATA)):
            first, second = DATA[:cut], DATA[cut:]
            combined = _core.crc64nvme_combine(_core.crc64nvme(first), _core.crc64nvme(second), len(second))
            assert combined == whole

    def test_parts_of_terabytes_combine_in_no_time(self) -> None:
        # doubling a run of zeros 43 times, against one combine over the whole 8 TiB
        crc, length = _core.crc64nvme(b"\0"), 1
        for _ in range(43):
            crc, length = _core.crc64nvme_combine(crc, crc, length), length * 2

        shorter = _core.crc64nvme_combine(crc, _core.crc64nvme(b"\0" * 5), 5)
        longer = _core.crc64nvme_combine(_core.crc64nvme(b"\0" * 5), crc, length)

        assert length == 8 << 40
        assert shorter == longer

    def test_a_negative_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            _core.crc64nvme_combine(1, 2, -1)
        with pytest.raises(OverflowError):
            _core.crc64nvme_combine(1, 2, 2**63)


class TestRanges:
    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 0), (0, 1), (5, 100), (0, 262_144), (1, 262_144), (262_143, 2), (3, 700_000), (0, len(DATA))],
    )
    def test_a_range_hashes_like_the_same_bytes(self, data_fd: int, offset: int, length: int) -> None:
        data = DATA[offset : offset + length]
        expected = (xxhash.xxh3_128_digest(data), checksums.crc64nvme(data))

        assert _core.xxh3_128_range(data_fd, offset, length) == expected[0]
        assert _core.crc64nvme_range(data_fd, offset, length) == expected[1]
        assert _core.hash_range(data_fd, offset, length) == expected

    def test_the_position_of_the_fd_stays(self, data_fd: int) -> None:
        os.lseek(data_fd, 17, os.SEEK_SET)

        _core.hash_range(data_fd, 0, 1000)

        assert os.lseek(data_fd, 0, os.SEEK_CUR) == 17

    @pytest.mark.parametrize("function", RANGES)
    def test_a_file_that_ends_inside_the_range_is_an_error_that_names_it(
        self, data_fd: int, function: Callable[[int, int, int], object]
    ) -> None:
        with pytest.raises(EOFError, match=rf"fd {data_fd} ends at {len(DATA)}, .* {len(DATA)} bytes from 1$"):
            function(data_fd, 1, len(DATA))

    @pytest.mark.parametrize("function", RANGES)
    def test_a_range_of_no_bytes_needs_no_file_behind_it(
        self, data_fd: int, function: Callable[[int, int, int], object]
    ) -> None:
        assert function(data_fd, len(DATA) + 1, 0) is not None

    @pytest.mark.parametrize("function", RANGES)
    @pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (-1, -1), (2**63 - 1, 1), (2, 2**63 - 1)])
    def test_a_range_that_cannot_be_is_refused(
        self, data_fd: int, function: Callable[[int, int, int], object], offset: int, length: int
    ) -> None:
        with pytest.raises(ValueError, match="no such range"):
            function(data_fd, offset, length)

    @pytest.mark.parametrize("function", RANGES)
    def test_numbers_over_64_bits_are_refused_not_cut(
        self, data_fd: int, function: Callable[[int, int, int], object]
    ) -> None:
        with pytest.raises(OverflowError):
            function(data_fd, 2**64, 1)
        with pytest.raises(OverflowError):
            function(data_fd, 0, 2**64 + 1)
        with pytest.raises(OverflowError):
            function(2**32 + data_fd, 0, 1)

    @pytest.mark.parametrize("function", RANGES)
    def test_what_cannot_be_read_is_an_oserror(
        self, tmp_path: Path, function: Callable[[int, int, int], object]
    ) -> None:
        directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        read_end, write_end = os.pipe()
        try:
            for fd, number in ((-1, errno.EBADF), (directory, errno.EISDIR), (read_end, errno.ESPIPE)):
                with pytest.raises(OSError) as caught:  # noqa: PT011
                    function(fd, 0, 1)
                assert caught.value.errno == number
        finally:
            for fd in (directory, read_end, write_end):
                os.close(fd)

    def test_many_threads_get_the_same_answer(self, data_fd: int) -> None:
        expected = _core.hash_range(data_fd, 0, len(DATA))
        answers: list[tuple[bytes, int]] = []
        threads = [
            threading.Thread(target=lambda: answers.append(_core.hash_range(data_fd, 0, len(DATA)))) for _ in range(8)
        ]

        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert answers == [expected] * 8


class TestParts:
    @pytest.mark.parametrize("part_size", [1000, 4096, 256 * 1024, 300_001, len(DATA), len(DATA) + 1, 2**63 - 1])
    def test_each_part_has_its_crc_and_the_whole_its_digest(self, data_fd: int, part_size: int) -> None:
        offset, length = 3, len(DATA) - 3

        digest, crcs = _core.hash_parts(data_fd, offset, length, part_size)

        starts = range(0, length, part_size)
        sizes = [min(part_size, length - start) for start in starts]
        assert digest == _core.xxh3_128_range(data_fd, offset, length)
        assert crcs == [
            _core.hash_range(data_fd, offset + start, size)[1] for start, size in zip(starts, sizes, strict=True)
        ]
        combined = 0
        for crc, size in zip(crcs, sizes, strict=True):
            combined = _core.crc64nvme_combine(combined, crc, size)
        assert combined == _core.crc64nvme_range(data_fd, offset, length)

    def test_a_range_of_no_bytes_has_no_parts(self, data_fd: int) -> None:
        assert _core.hash_parts(data_fd, 0, 0, 4096) == (_core.xxh3_128(b""), [])

    def test_parts_beyond_4_gib_are_where_they_belong(self, tmp_path: Path) -> None:
        path = tmp_path / "sparse"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, DATA[:5000], 5 << 30)

        _, crcs = _core.hash_parts(fd, 5 << 30, 5000, 4096)

        os.close(fd)
        assert crcs == [_core.crc64nvme(DATA[:4096]), _core.crc64nvme(DATA[4096:5000])]

    @pytest.mark.parametrize("part_size", [0, -1])
    def test_parts_of_nothing_are_refused(self, data_fd: int, part_size: int) -> None:
        with pytest.raises(ValueError, match="part_size"):
            _core.hash_parts(data_fd, 0, 1, part_size)

    def test_more_parts_than_memory_holds_are_refused(self, data_fd: int) -> None:
        with pytest.raises(MemoryError):
            _core.hash_parts(data_fd, 0, 2**63 - 1, 1)
