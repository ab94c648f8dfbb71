"""Builds fsxsync._core, and nothing else: everything that is data stands in pyproject.toml.

FSXSYNC_WERROR=1 turns warnings into errors, FSXSYNC_SANITIZE=1 builds with ASan and UBSan.
"""

import os
import shlex
import subprocess

from setuptools import Extension, setup

TRANSFER = [
    *["transfer_pool", "transfer_queue", "transfer_wire", "transfer_judge", "transfer_body"],
    *["transfer_job", "transfer_limit", "transfer_headers"],
]
CHANNEL = [
    *[
        "channel_relay",
        "channel_awake",
        "channel_requests",
        "channel_answer",
        "channel_pending",
        "channel_wire",
        "channel_screen",
        "channel_counts",
        "channel_direct",
        "channel_files",
    ],
    *["channel_tables", "channel_map", "channel_journal", "channel_attributes", "channel_listing"],
]
IN_WIRE_H = {"transfer_judge", "transfer_body"}  # what they have for others is declared there
SOURCES = [
    *["module.c", "hashing.c", "hash_range.c", "crc64nvme.c", "syscalls.c", "getdents.c", "directory.c", "stub.c"],
    *["look.c", "records.c", "release.c", "hydrate.c"],
    *["transfer.c", "transfer_request.c", "transfer_result.c"],
    *[f"{name}.c" for name in TRANSFER],
    *["channel.c", "channel_learning.c", "channel_mount.c", *(f"{name}.c" for name in CHANNEL)],
]
HEADERS = [
    *["module.h", "look.h", "crc64nvme.h", "hash_range.h", "transfer_glue.h", "channel_glue.h"],
    *[f"{name}.h" for name in TRANSFER if name not in IN_WIRE_H],
    "channel_asked.h",
    *[f"{name}.h" for name in CHANNEL if name != "channel_files"],
]
PACKAGES = ["libxxhash", "libcurl"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Wvla"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def pkg_config(what: str) -> list[str]:
    return shlex.split(
        subprocess.run(["pkg-config", what, *PACKAGES], check=True, capture_output=True, text=True).stdout
    )


compile_args = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", *WARNINGS, *pkg_config("--cflags")]
link_args = pkg_config("--libs")
if os.environ.get("FSXSYNC_WERROR") == "1":
    compile_args += ["-Werror"]
if os.environ.get("FSXSYNC_SANITIZE") == "1":
    compile_args += [*SANITIZE, "-O1", "-g"]
    link_args += SANITIZE

setup(
    ext_modules=[
        Extension(
            "fsxsync._core",
            sources=[f"c_ext/{name}" for name in SOURCES],
            depends=[f"c_ext/{name}" for name in HEADERS],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ]
)
