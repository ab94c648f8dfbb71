"""Where the mount differs from the bare directory, and why. docs/SEMANTICS.md has a line for each of these.

A deviation that does not occur any more fails its test: then it leaves both lists.
"""

from __future__ import annotations

from dataclasses import dataclass

from posix_suite.registry import Observed, as_json

BOTH = ("auto", "off")
ORDINARY = "ordinary"
"""Without passthrough, the daemon an ordinary user's: what else it deviates in than root's."""
ACTORS = ("root", "user")


@dataclass(frozen=True, slots=True)
class Deviation:
    reason: str
    """What differs, and why: the document has it word for word."""
    observed: dict[str, Observed]
    """By case: what the mount shows instead."""
    data_paths: tuple[str, ...] = BOTH
    actors: tuple[str, ...] = ACTORS
    test: str = ""
    """What shows it where no case does."""


DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "Devices can be made and can't be opened (`EACCES`): the mount is `nodev`, as other users' file systems "
        "should be. `-o dev` allows it.",
        {"open_a_device": ["EACCES", "ok"]},
    ),
    Deviation(
        "A set-user-id program runs as whoever started it: the mount is `nosuid`. `-o suid` allows it.",
        {"run_a_set_uid_program": ["who started it", "who started it"]},
    ),
    Deviation(
        "`O_TMPFILE` gives `EOPNOTSUPP`: pyfuse3 does not hand on FUSE's request for it. Programs make a file "
        "with a name then.",
        {"open_a_file_without_a_name": ["ENOTSUP", []]},
    ),
    Deviation(
        "`open` with `O_RDONLY|O_TRUNC`, which POSIX leaves undefined, cuts a program that runs, and then says "
        "`ETXTBSY`: FUSE has us cut before the kernel looks. With `O_WRONLY`, `O_RDWR` or `truncate` nothing is "
        "cut.",
        {"open_to_read_and_cut_a_program_that_runs": "cut"},
    ),
    Deviation(
        "`RENAME_WHITEOUT`, which overlay file systems use, gives `EINVAL`: a whiteout is a device, and none is "
        "exported.",
        {"rename_leaving_a_whiteout": ["EINVAL", "-"]},
    ),
    Deviation(
        "A `chown` of a stranger's set-id file to -1, -1 succeeds and changes nothing, instead of `EPERM`: the "
        "kernel sends the same request before a stranger's write, which must succeed.",
        {"chown_of_a_strangers_file_to_nobody": ["ok", "7777"]},
        data_paths=("auto",),
        actors=("user",),
    ),
    Deviation(
        "A set-gid bit without execution for the group, which has no effect, stays when somebody who is not of the "
        "group writes. Linux takes it away since 6.2; FUSE leaves it to us, and a write names no groups of its caller.",
        {"set_gid_of_a_foreign_group_without_execution": ["2767"]},
        actors=("user",),
    ),
    Deviation(
        "Writing into a FIFO does not move its times: the kernel keeps what is in it, and tells a FUSE file "
        "system nothing.",
        {"writing_into_a_fifo_moves_its_times": {"fifo": "", ".": ""}},
    ),
    Deviation(
        "Without passthrough, a read that the kernel answers from its cache, or at the end of the file from the "
        "size it knows, does not move the atime: FUSE leaves that time to us, and we do not see the read.",
        {
            "reading_an_empty_file_moves_the_atime": {"f": ""},
            "reading_twice_moves_the_atime_twice": [{"f": "a"}, {"f": ""}],
        },
        data_paths=("off",),
    ),
    Deviation(
        "Without passthrough, a store through a shared mapping moves the times by `msync`, as POSIX wants, and not at "
        "once: FUSE tells us when the page is written back.",
        {"storing_through_a_mapping_moves_times_before_msync": ""},
        data_paths=("off",),
    ),
    Deviation(
        "Without passthrough, `SEEK_DATA` and `SEEK_HOLE` take a file for data all over: pyfuse3 does not hand on"
        " FUSE's `lseek`.",
        {"lseek_finds_data_and_holes": [0, (1 << 20) + 4096]},
        data_paths=("off",),
    ),
    Deviation(
        "Without passthrough, `fallocate` gives `EOPNOTSUPP`: pyfuse3 does not hand on FUSE's request. "
        "`posix_fallocate` works, slowly.",
        {
            "fallocate_gives_and_punches_space": ["ENOTSUP", 100, "ENOTSUP", 100, False],
            "fallocate_zeroes_a_range": ["ENOTSUP", 12288],
        },
        data_paths=("off",),
    ),
    Deviation(
        "`fallocate` neither collapses nor inserts a range (`EOPNOTSUPP`): FUSE has no word for it.",
        {"fallocate_moves_what_comes_after": ["ENOTSUP", "ENOTSUP", 12288]},
    ),
    Deviation(
        "A file of holes alone shows one block of space: of one that shows none `tar` and `cp` copy holes, and a "
        "released file would lose its data so.",
        {"a_file_of_holes_alone_takes_no_space": 1},
    ),
    Deviation(
        "Without passthrough, `O_DIRECT` asks for no alignment: the bytes come through the daemon, and the host's"
        " page cache.",
        {"direct_io_of_whole_blocks_only": ["ok", True, "ok"]},
        data_paths=("off",),
    ),
    Deviation(
        "Extended attributes are those of `user.`; `trusted.` and `security.` give `EOPNOTSUPP`. Objects could "
        "not carry them to another host, where they would mean something else.",
        {"attributes_of_privileged_namespaces": {"trusted.a": "ENOTSUP", "security.a": "ENOTSUP"}},
        actors=("root",),
    ),
    Deviation(
        "Access control lists give `EOPNOTSUPP`, and those set in the tree itself are not looked at: only mode, "
        "owner and group travel with an object.",
        {"access_control_lists_are_set": "ENOTSUP"},
    ),
    Deviation(
        "`chattr` and `lsattr` give `ENOTTY`, and `filefrag` `EOPNOTSUPP`: pyfuse3 does not hand on `ioctl`, and FUSE "
        "knows no extents.",
        {"inode_flags_as_chattr_sets_them": ["ENOTTY", "ENOTTY"], "the_map_of_a_files_extents": "ENOTSUP"},
    ),
    Deviation(
        "`statx` tells no time of birth: FUSE has a request for it since Linux 6.6, libfuse 3.14 has not.",
        {"statx_tells_the_time_of_birth": False},
    ),
    Deviation(
        "`pathconf` says 127 for the names that a file may have: libc knows that limit by the file system's type, and "
        "takes the least that POSIX allows for one it does not know. The host's limit holds.",
        {"pathconf_of_what_libc_knows_by_the_type": [127, -1]},
    ),
    Deviation(
        "Below 4,096 levels of directories what is there is seen, and nothing can be changed (`ESTALE`): no key could "
        "name it.",
        {},
        test="test_a_tree_may_have_more_levels_than_a_key_could_name",
    ),
    Deviation(
        "Where the daemon is an ordinary user's, a directory that may be read and not searched can't be listed "
        "(`EACCES`): the daemon looks at each name as that user, and needs to search for it.",
        {"listing_of_a_directory_of_each_mode": ["EACCES"] * 5 + ["ok", "EACCES", "ok"]},
        data_paths=(ORDINARY,),
    ),
    Deviation(
        "Below a `--read-only` association `access` says that one may write what one may write elsewhere: it asks"
        " the kernel, which knows a read-only mount, and not a directory that is. Writing gives `EROFS`.",
        {"ro_access_to_write": "ok"},
    ),
    Deviation(
        "Below a `--read-only` association, where `EROFS` is due and another error as well, it is the other one: "
        "the kernel looks before it asks us.",
        {"ro_unlink_what_is_missing": "ENOENT"},
    ),
)


def lines() -> list[str]:
    """As the document lists them: each reason with the tests that show it."""
    return [f"{each.reason} {', '.join(f'`{test}`' for test in _tests(each))}" for each in DEVIATIONS]


def _tests(deviation: Deviation) -> list[str]:
    return [_test(name, deviation) for name in deviation.observed] or [deviation.test]


def _test(name: str, deviation: Deviation) -> str:
    if ORDINARY in deviation.data_paths:
        return f"test_ordinary_daemon[{name}]"
    return f"test_read_only[{name}]" if name.startswith("ro_") else f"test_case[{name}]"


def expected_instead(name: str, actor: str, data_path: str) -> tuple[Observed] | None:
    """What the mount is known to show instead, in a tuple; None: what the bare directory shows."""
    paths = {data_path, "off"} if data_path == ORDINARY else {data_path}
    for deviation in DEVIATIONS:
        if name in deviation.observed and actor in deviation.actors and paths.intersection(deviation.data_paths):
            return (as_json(deviation.observed[name]),)
    return None
