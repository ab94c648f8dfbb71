"""The story that ``fsxsync demo`` tells: with ``--check`` it plays it and looks at both sides after each step."""

from __future__ import annotations

import hashlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fsxsync.demo.world import DATASETS, RESULTS, World, world

BIG = 40 * 1024 * 1024
SMALL = 120


class StoryFailed(Exception):
    """A step did not hold: what was expected, and what was there."""


def run(directory: Path, check: bool) -> int:
    """Play the demo in ``directory``; the exit code.

    Raises:
        FsxSyncError: it could not be set up, or a command failed.
    """
    # A service manager's or a shell's polite end has to unmount as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with world(directory) as here:
        _fill(here)
        here.mount()
        _associate(here)
        if not check:
            return _wait_for_the_visitor(here)
        for number, (title, step) in enumerate(STEPS, 1):
            print(f"{number}. {title}")  # noqa: T201
            try:
                step(here)
            except StoryFailed as failure:
                print(f"   FAILED: {failure}")  # noqa: T201
                return 1
        print("All of it held, on both sides.")  # noqa: T201
    return 0


def _fill(here: World) -> None:
    for number in range(SMALL):
        here.put(
            DATASETS, f"raw/day-{number % 4}/sample-{number:03}.csv", f"id,value\n{number},{number * 7}\n".encode()
        )
    here.put(DATASETS, "raw/movie.bin", _noise())


def _noise() -> bytes:
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(BIG // 32))


def _associate(here: World) -> None:
    for bucket, prefix, path in ((DATASETS, "raw/", "/datasets"), (RESULTS, "", "/results")):
        here.run(
            "associate", f"s3://{bucket}/{prefix}", path, "--endpoint-url", here.url, "--events", f"sqs:{here.queue}"
        )


def _wait_for_the_visitor(here: World) -> int:
    settings = "\n".join(f"  export {name}={value}" for name, value in here.environment.items())
    print(  # noqa: T201
        f"""
{here.directory} is two buckets now: datasets/ is s3://{DATASETS}/raw/, results/ is s3://{RESULTS}/.
In another terminal:

{settings}
  export AWS_ENDPOINT_URL={here.url}

  ls -l {here.directory}/datasets              # {SMALL + 1} objects, nothing downloaded yet
  fsxsync state {here.directory}/datasets/movie.bin
  head -c 16 {here.directory}/datasets/movie.bin | xxd
  echo hello > {here.directory}/results/hello.txt && fsxsync wait
  mv {here.directory}/datasets/day-1 {here.directory}/datasets/monday
  fsxsync associations; fsxsync status

Any S3 client sees the other side, for example: aws s3 ls --recursive s3://{RESULTS}/

Ctrl-C ends the demo, and nothing is left of it.""",
        flush=True,
    )
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()  # noqa: T201
    return 0


# ---------------------------------------------------------------- the steps


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise StoryFailed(f"{what}: expected {_short(wanted)}, saw {_short(found)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _say(directory: str, bucket: str) -> None:
    print(f"   directory: {directory}\n   bucket:    {bucket}")  # noqa: T201


def _lazy(here: World) -> None:
    movie = here.directory / "datasets/movie.bin"
    listed = sorted(path for path in (here.directory / "datasets").rglob("*") if path.is_file())
    _expect(len(listed), SMALL + 1, "files in datasets/")
    before = here.state(movie)
    _expect(before["flags"], ["released", "exists", "archived"], "state of movie.bin")
    with movie.open("rb") as stream:
        stream.seek(BIG // 2)
        part = stream.read(4096)
    _expect(part, _noise()[BIG // 2 : BIG // 2 + 4096], "4 KiB in the middle of movie.bin")
    whole = hashlib.sha256(movie.read_bytes()).hexdigest()
    _expect(whole, hashlib.sha256(here.get(DATASETS, "raw/movie.bin")).hexdigest(), "all of movie.bin")
    here.run("wait")
    after = here.state(movie)
    _expect(after["flags"], ["exists", "archived"], "state of movie.bin after reading it")
    _say(
        f"{len(listed)} files; movie.bin was {' '.join(before['flags'])} with {before['resident_bytes']} bytes here;"
        f" read back, it is {' '.join(after['flags'])}",
        f"{len(here.keys(DATASETS))} objects, movie.bin with the same SHA-256 {whole[:16]}...",
    )


def _export(here: World) -> None:
    report = here.directory / "results/run-1/report.txt"
    report.parent.mkdir()
    report.write_text("42\n")
    report.chmod(0o640)
    here.run("wait")
    _expect(here.keys(RESULTS), ["run-1/", "run-1/report.txt"], "keys of the bucket")
    _expect(here.get(RESULTS, "run-1/report.txt"), b"42\n", "the object")
    metadata = here.other.head_object(Bucket=RESULTS, Key="run-1/report.txt")["Metadata"]
    _expect(metadata.get("file-permissions"), "0100640", "its file-permissions")
    _say("wrote results/run-1/report.txt, mode 0640", f"run-1/report.txt holds it, metadata {metadata}")


def _import(here: World) -> None:
    here.put(RESULTS, "from-elsewhere.txt", b"hello\n")
    here.put(RESULTS, "run-1/report.txt", b"43, corrected\n")
    here.run("wait")
    _expect((here.directory / "results/from-elsewhere.txt").read_bytes(), b"hello\n", "the new file")
    _expect((here.directory / "results/run-1/report.txt").read_bytes(), b"43, corrected\n", "the changed file")
    _say("from-elsewhere.txt appeared, run-1/report.txt reads '43, corrected'", "another client had put both")


def _delete(here: World) -> None:
    here.delete(RESULTS, "from-elsewhere.txt")
    (here.directory / "datasets/day-0/sample-000.csv").unlink()
    here.run("wait")
    _expect((here.directory / "results/from-elsewhere.txt").exists(), False, "from-elsewhere.txt is there")
    _expect("raw/day-0/sample-000.csv" in here.keys(DATASETS), False, "sample-000.csv is in the bucket")
    _say("from-elsewhere.txt went with its object", "sample-000.csv went with its file")


def _rename(here: World) -> None:
    datasets = here.directory / "datasets"
    (datasets / "day-1").rename(datasets / "monday")
    here.run("wait")
    keys = here.keys(DATASETS)
    moved = [key for key in keys if key.startswith("raw/monday/sample")]
    _expect(len(moved), SMALL // 4, "objects below raw/monday/")
    _expect([key for key in keys if key.startswith("raw/day-1/")], [], "objects left below raw/day-1/")
    _expect((datasets / "monday/sample-001.csv").read_bytes(), here.get(DATASETS, moved[0]), "a moved file")
    _say("mv day-1 monday", f"{len(moved)} objects moved by copies on the server, nothing was uploaded")


def _crash(here: World) -> None:
    saved = here.directory / "results/saved.txt"
    saved.write_text("written right before the crash\n")
    here.kill()
    here.put(RESULTS, "while-away.txt", b"put while nobody was there\n")
    here.mount()
    here.run("wait")
    _expect(here.get(RESULTS, "saved.txt"), b"written right before the crash\n", "the object of saved.txt")
    _expect((here.directory / "results/while-away.txt").read_bytes(), b"put while nobody was there\n", "the file")
    _say("kill -9 right after a write; after the restart while-away.txt is there", "saved.txt arrived all the same")


def _unmount(here: World) -> None:
    before = here.keys(DATASETS), here.keys(RESULTS)
    here.run("unmount", str(here.directory))
    _expect(list(here.directory.iterdir()), [], "what is left in the directory")
    _expect((here.keys(DATASETS), here.keys(RESULTS)), before, "keys of the buckets")
    _say("unmounted", f"all {len(before[0]) + len(before[1])} objects are as they were")


STEPS: list[tuple[str, Callable[[World], None]]] = [
    ("Two buckets are two directories, and data comes when it is read", _lazy),
    ("A file written becomes an object", _export),
    ("Objects put by somebody else become files", _import),
    ("Deletes travel both ways", _delete),
    ("A directory is renamed", _rename),
    ("A crash loses nothing", _crash),
    ("Unmounting deletes nothing", _unmount),
]
