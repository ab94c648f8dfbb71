# ruff: noqa: S103, S603 - odd modes are what it is about, and it runs its own copies
"""execve(2), and files that are programs."""

from __future__ import annotations

import os
import shutil
import subprocess

from posix_suite.identities import ROOT, STRANGER, Identity
from posix_suite.observing import opening, outcome
from posix_suite.registry import Observed, case


@case(["ETXTBSY", "ETXTBSY", "ok", "ok"])
def open_a_program_that_runs(me: Identity) -> Observed:
    shutil.copy("/bin/sleep", "sleep")
    with subprocess.Popen(["./sleep", "60"]) as running:
        seen = [
            opening("sleep", os.O_WRONLY),
            outcome(os.truncate, "sleep", 0),
            opening("sleep", os.O_RDONLY),
        ]
        running.kill()
    return [*seen, opening("sleep", os.O_WRONLY)]


@case("whole")
def open_to_read_and_cut_a_program_that_runs(me: Identity) -> Observed:
    shutil.copy("/bin/sleep", "sleep")
    with subprocess.Popen(["./sleep", "60"]) as running:
        opening("sleep", os.O_RDONLY | os.O_TRUNC)
        left = os.stat("sleep").st_size
        running.kill()
    return "whole" if left else "cut"


@case(["ETXTBSY", "ok"])
def run_a_program_that_is_written(me: Identity) -> Observed:
    shutil.copy("/bin/true", "true")
    with open("true", "r+b"):
        while_open = outcome(subprocess.run, ["./true"], check=True)
    return [while_open, outcome(subprocess.run, ["./true"], check=True)]


@case(["EACCES", "EACCES", "ok", "EACCES", "ENOENT", "ENOTDIR"])
def run_what_may_and_may_not(me: Identity) -> Observed:
    shutil.copy("/bin/true", "true")
    os.mkdir("d")
    outcomes = []
    for mode in (0o644, 0o666, 0o500):
        os.chmod("true", mode)  # root too needs one x bit
        outcomes.append(outcome(subprocess.run, ["./true"], check=True))
    return [*outcomes, *(outcome(subprocess.run, [name]) for name in ("./d", "./missing", "./true/x"))]


@case(["its owner", "who started it"])
def run_a_set_uid_program(me: Identity) -> Observed:
    shutil.copy("/usr/bin/id", "id")
    with ROOT.acting():
        os.chown("id", STRANGER.uid, STRANGER.gid)
        os.chmod("id", 0o4755)
    seen = []
    for program in ("./id", "/usr/bin/id"):
        told = int(subprocess.check_output([program, "-u"]))
        seen.append({STRANGER.uid: "its owner", me.uid: "who started it"}[told])
    return seen
