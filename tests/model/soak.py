"""`make soak MINUTES=10 SEED=1`: worlds of consecutive seeds, for as long as asked, several at a time.

Also, with what a failure left behind: ``--replay FILE`` does its steps again, ``--shorten FILE`` looks for fewer ones.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from model.daemons import SMALL_PARTS, Daemons
from model.driver import Plan, plan_of, run, shorten
from support.forked import ForkServer
from support.moto_server import MotoServer

# ruff: noqa: E402, T201  it is a command, and finds its neighbours by itself
HANGS_S = 240
"""A world that takes so long is stuck; where, is printed."""
PACE = 500
"""Steps a minute: fewer mean that something waits for a timeout, and that the night's soak tries less than is told."""
PACED_MINUTES = 5
"""A shorter soak is mostly the start of its daemons."""


def _daemons(stack: ExitStack) -> Daemons:
    base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsxsync-soak-", ignore_cleanup_errors=True)))
    moto = stack.enter_context(MotoServer(SMALL_PARTS))
    daemons = Daemons(moto, stack.enter_context(ForkServer()), base, own_disk=True)
    stack.callback(daemons.close)
    return daemons


def _work(seeds: Any, results: Any, deadline: float, into: Path) -> None:
    import faulthandler  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    soak_pid = os.getppid()
    with ExitStack() as stack:
        daemons = _daemons(stack)
        while time.time() < deadline and os.getppid() == soak_pid:  # whoever ends the soak ends its worlds
            try:
                seed = seeds.get_nowait()
            except queue.Empty:
                return
            plan = plan_of(seed)
            faulthandler.dump_traceback_later(HANGS_S)
            began = time.monotonic()
            try:
                run(plan, daemons, keep=into / f"seed-{seed}")
            except Exception:  # noqa: BLE001  whatever it was, the next seed has its turn
                results.put((seed, len(plan.steps), traceback.format_exc()))
            else:
                results.put((seed, len(plan.steps), ""))
            faulthandler.cancel_dump_traceback_later()
            took = time.monotonic() - began
            if took > 60:
                print(f"seed {seed} took {took:.0f} s", flush=True)


def soak(minutes: float, first: int, workers: int, into: Path) -> bool:
    """Run; whether no world failed, and they went fast enough."""
    deadline = time.time() + minutes * 60
    context = multiprocessing.get_context("spawn")
    seeds, results = context.Queue(), context.Queue()
    for seed in range(first, first + int(minutes * 60) * workers):
        seeds.put(seed)
    seeds.cancel_join_thread()  # seeds that nobody takes any more must not be waited for at the end
    time.sleep(0.2)  # a queue's feeder is a thread
    processes = [context.Process(target=_work, args=(seeds, results, deadline, into)) for _ in range(workers)]
    for process in processes:
        process.start()
    began, steps, worlds, failed, last = time.monotonic(), 0, 0, 0, first
    told = began
    while any(process.is_alive() for process in processes) or not results.empty():
        try:
            seed, count, error = results.get(timeout=0.5)
        except queue.Empty:
            continue
        worlds, last = worlds + 1, max(last, seed)
        if error:
            failed += 1
            path = into / f"seed-{seed}.json"
            plan_of(seed).save(path, error)
            print(f"seed {seed} FAILED, steps in {path}\n{error[-3000:]}", flush=True)
        else:
            steps += count
        if error or time.monotonic() - told > 20:
            told = time.monotonic()
            print(_figures(first, last, worlds, failed, steps, began), flush=True)
    for process in processes:
        process.join()
    print(_figures(first, last, worlds, failed, steps, began), flush=True)
    pace = steps / ((time.monotonic() - began) / 60)
    is_slow = minutes >= PACED_MINUTES and pace < PACE
    if is_slow:
        print(f"TOO SLOW: {pace:.0f} steps a minute, and {PACE} is the least", flush=True)
    return not failed and not is_slow


def _figures(first: int, last: int, worlds: int, failed: int, steps: int, began: float) -> str:
    minutes = (time.monotonic() - began) / 60
    return (
        f"seeds {first} to {last}: {worlds} worlds, {failed} failed, {steps} steps passed in {minutes:.1f} min, "
        f"{steps / minutes:.0f} a minute"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=max(2, (os.cpu_count() or 2) + 1))
    parser.add_argument("--into", type=Path, default=Path("build/soak"))
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--shorten", type=Path)
    parser.add_argument("--failing", default="", help="what the error of the shorter one has to say")
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    chosen = given.replay or given.shorten
    if chosen is None:
        sys.exit(0 if soak(given.minutes, given.seed, given.workers, given.into) else 1)
    with ExitStack() as stack:
        daemons = _daemons(stack)
        plan = Plan.load(chosen)
        if given.shorten:
            plan = shorten(plan, daemons, minutes=given.minutes, failing=given.failing)
            plan.save(chosen.with_suffix(".short.json"), "")
            print("\n".join(map(str, plan.steps)))
            return
        for attempt in range(given.times):
            print(f"attempt {attempt + 1}", flush=True)
            run(plan, daemons, keep=chosen.with_suffix(""))


if __name__ == "__main__":
    main()
