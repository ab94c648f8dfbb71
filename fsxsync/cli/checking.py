"""``check``: are tree, catalog, stubs and repository as the rules have them?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from fsxsync.cli.context import Instance
from fsxsync.cli.hostpaths import as_typed, tree_paths
from fsxsync.cli.output import AS_JSON, documents
from fsxsync.control.client import Document
from fsxsync.control.protocol import DaemonError
from fsxsync.errors import FsxSyncError, NoDaemon
from fsxsync.model.finding import Finding
from fsxsync.telemetry.log import escape

ADVICE = "'fsxsync events --level WARN' may say how it came to this; see docs/OPERATIONS.md, Checking"


class RulesBroken(FsxSyncError):
    advice = ADVICE


@click.command(short_help="Report every broken rule of tree, catalog and stubs.")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option(
    "--verify", is_flag=True, help="Also read every file that is here, and ask the repository for its checksum."
)
@click.option("--repair", is_flag=True, help="Bring in order what can be without losing data, and say what was done.")
@AS_JSON
@click.pass_obj
def check(instance: Instance, /, paths: Sequence[str], *, verify: bool, repair: bool, as_json: bool) -> None:
    """Compare the tree with the catalog and the stubs, below PATH (without: everywhere). Changes nothing without
    --repair.

    Also where no daemon runs; then what was changed since it ended is left out. --repair needs one.

    Prints a line for each broken rule, and ends with exit code 1 if there is any. Files that are changed, open or
    being loaded just now are left out. With --verify, every file that is here is read and compared with what was
    synced, and with its object's checksum. --json prints a list with an object for each broken rule.

    --repair has most of what is found looked at again, as after any change, so that it is exported or imported under
    the usual conditions. No object is deleted because its file is missing: the file comes back. What only a person
    can decide is left, with the reason, and the exit code is 1 then.

    \b
    Example:
      fsxsync check
      fsxsync check --repair
      fsxsync check --verify --json /fsx/datasets | jq -r '.[].path'
    """
    tally: Document = {}
    status, lines = _asked(instance, paths, verify=verify, repair=repair)
    root = os.path.realpath(status["mount"] or status["tree"] or "/")
    findings = (_shown(finding, root, repair=repair) for finding in _findings(lines, tally))
    if as_json:
        documents(findings)
    else:
        for finding in findings:
            click.echo(f"{escape(finding['path'])}: {finding['rule']}: {escape(finding['message'])}{_became(finding)}")
    told = _summary(tally, verify=verify, repair=repair)
    if broken := tally["broken"] - tally["repaired"]:
        rules = "a rule is" if broken == 1 else f"{broken} rules are"
        raise RulesBroken(f"{rules} broken", told)
    click.echo(told, err=as_json)  # --json: nothing else on stdout


def _asked(
    instance: Instance, paths: Sequence[str], *, verify: bool, repair: bool
) -> tuple[Document, Iterator[Document]]:
    """What a daemon says of itself and of these paths, or we where none runs."""
    try:
        status = instance.client.where()
    except NoDaemon as error:
        from fsxsync.daemon.offline import tree_of  # noqa: PLC0415 - a daemon's imports take a while

        if repair:
            raise NoDaemon(
                "check --repair", "no daemon runs, and what is repaired is exported or imported by it"
            ) from error
        status = {"mount": None, "tree": str(tree_of(instance.state_dir))}
        return status, _offline(instance, tree_paths(paths, status), verify=verify)
    return status, _checked(instance, paths, tree_paths(paths, status), verify=verify, repair=repair)


def _checked(
    instance: Instance, paths: Sequence[str], asked: Sequence[bytes], *, verify: bool, repair: bool
) -> Iterator[Document]:
    with as_typed(paths, asked):
        for line in instance.client.check(asked, verify=verify, repair=repair):
            if "error" in line:
                raise DaemonError(line["error"])
            yield line


def _offline(instance: Instance, asked: Sequence[bytes], *, verify: bool) -> Iterator[Document]:
    """As the daemon's own lines."""
    from fsxsync.control.documents import of_finding  # noqa: PLC0415 - the same
    from fsxsync.daemon.offline import check_offline  # noqa: PLC0415

    for told in check_offline(instance.state_dir, asked or [b""], verify=verify):
        yield {"finding": of_finding(told)} if isinstance(told, Finding) else {"tally": asdict(told)}


def _shown(finding: Document, root: str, *, repair: bool) -> Document:
    named = {name: value for name, value in finding.items() if repair or name not in {"repaired", "repair"}}
    return named | {"path": os.path.join(root, finding["path"])}


def _became(finding: Document) -> str:
    if not finding.get("repair"):
        return ""
    return f"; {'repaired' if finding['repaired'] else 'left'}: {escape(finding['repair'])}"


def _findings(lines: Iterator[Document], tally: Document) -> Iterator[Document]:
    for line in lines:
        if "tally" in line:
            tally.update(line["tally"])
        else:
            yield line["finding"]


def _summary(tally: Document, *, verify: bool, repair: bool) -> str:
    parts = [f"checked {tally['entries']}", f"skipped {tally['skipped']}"]
    if verify:
        parts += [
            f"verified {tally['verified']}",
            f"without a checksum {tally['without_checksum']}",
            f"released {tally['released']}",
            f"changed in the repository {tally['not_imported']}",
            f"differing {tally['differing']}",
        ]
    if repair:
        parts.append(f"repaired {tally['repaired']}")
    return ", ".join(parts)
