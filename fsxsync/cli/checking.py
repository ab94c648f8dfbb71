"""``check``: are tree, catalog, stubs and repository as the rules have them?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import click

from fsxsync.cli.associations import AS_JSON
from fsxsync.cli.context import Instance
from fsxsync.cli.hostpaths import tree_paths
from fsxsync.cli.output import documents
from fsxsync.control.client import Document
from fsxsync.control.protocol import DaemonError
from fsxsync.errors import FsxSyncError
from fsxsync.telemetry.log import escape

ADVICE = "'fsxsync events --level WARN' may say how it came to this; see docs/OPERATIONS.md, Checking"


class RulesBroken(FsxSyncError):
    advice = ADVICE


@click.command(short_help="Report every broken rule of tree, catalog and stubs.")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option(
    "--verify", is_flag=True, help="Also read every file that is here, and ask the repository for its checksum."
)
@AS_JSON
@click.pass_obj
def check(instance: Instance, /, paths: Sequence[str], *, verify: bool, as_json: bool) -> None:
    """Compare the tree with the catalog and the stubs, below PATH (without: everywhere). Changes nothing.

    Prints a line for each broken rule, and ends with exit code 1 if there is any. Files that are changed, open or
    being loaded just now are left out. With --verify, every file that is here is read and compared with what was
    synced, and with its object's checksum. --json prints a list with an object for each broken rule.

    \b
    Example:
      fsxsync check
      fsxsync check --verify --json /fsx/datasets | jq -r '.[].path'
    """
    client = instance.client
    status = client.status()
    root = os.path.realpath(status["mount"] or status["tree"])
    tally: Document = {}
    findings = (
        finding | {"path": os.path.join(root, finding["path"])}
        for finding in _findings(client.check(tree_paths(paths, status), verify=verify), tally)
    )
    if as_json:
        documents(findings)
    else:
        for finding in findings:
            click.echo(f"{escape(finding['path'])}: {finding['rule']}: {escape(finding['message'])}")
    told = _summary(tally, verify=verify)
    if tally["broken"]:
        rules = "a rule is" if tally["broken"] == 1 else f"{tally['broken']} rules are"
        raise RulesBroken(f"{rules} broken", told)
    click.echo(told, err=as_json)  # --json: nothing else on stdout


def _findings(lines: Iterator[Document], tally: Document) -> Iterator[Document]:
    for line in lines:
        if "error" in line:
            raise DaemonError(line["error"])
        if "tally" in line:
            tally.update(line["tally"])
        else:
            yield line["finding"]


def _summary(tally: Document, *, verify: bool) -> str:
    parts = [f"checked {tally['entries']}", f"skipped {tally['skipped']}"]
    if verify:
        parts += [
            f"verified {tally['verified']}",
            f"without a checksum {tally['without_checksum']}",
            f"released {tally['released']}",
            f"changed in the repository {tally['not_imported']}",
            f"differing {tally['differing']}",
        ]
    return ", ".join(parts)
