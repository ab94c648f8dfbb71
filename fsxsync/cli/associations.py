"""``associate``, ``associations`` and ``association show|update|delete``."""

from __future__ import annotations

from typing import Any

import click

from fsxsync.cli import output
from fsxsync.cli.context import Instance
from fsxsync.cli.options import association_options, members
from fsxsync.cli.output import AS_JSON
from fsxsync.control.client import Document
from fsxsync.model.association import parse_directory, parse_s3_uri
from fsxsync.telemetry.log import escape

COLUMNS = (
    "id",
    "path",
    "repository",
    "state",
    "import",
    "export",
    "pending",
    "oldest",
    "conflicts",
    "errors",
)


@click.command(short_help="Link s3://bucket/prefix/ with a directory.")
@click.argument("s3uri")
@click.argument("path")
@association_options
@click.option("--read-only", is_flag=True, default=None, help="Export nothing; the mount answers EROFS.")
@click.option("--no-import-metadata", is_flag=True, help="Don't import the listing now.")
@click.option("--no-wait", is_flag=True, help="Return at once; 'associations' shows when it is AVAILABLE.")
@click.pass_obj
def associate(
    instance: Instance,
    /,
    s3uri: str,
    path: str,
    *,
    no_import_metadata: bool,
    no_wait: bool,
    **options: Any,
) -> None:
    """Link s3://bucket/prefix/ with PATH, which counts from the file system's root and is made if missing.

    Imports the listing, waits until the association is AVAILABLE and prints its id. Both directions are on
    unless --import or --export say otherwise; "none" turns a direction off.

    A GLOB without "/" is matched against each part of a path, one with "/" against the whole path below PATH.
    What matches --exclude is left alone on both sides; with --include all else is. So is what .fsxsyncignore
    in PATH names, in gitignore's words; that file is obeyed at once, and is not exported itself.

    \b
    Examples:
      fsxsync associate s3://bucket/datasets/ /datasets
      fsxsync associate s3://bucket/logs/ /logs --import none --exclude '*.tmp' --min-age 15m --max-size 5G
      fsxsync associate s3://bucket/in/ /in --events create
      fsxsync associate s3://bucket/ /in --events sqs:https://sqs.eu-central-1.amazonaws.com/123456789012/q
    """
    parse_s3_uri(s3uri)
    parse_directory(path)
    wanted = members(options) | {
        "repository": s3uri,
        "path": path,
        "import_metadata": not no_import_metadata,
        "wait": not no_wait,
    }
    click.echo(instance.client.associate(wanted)["id"])


@click.command(short_help="List the associations.")
@AS_JSON
@click.pass_obj
def associations(instance: Instance, /, *, as_json: bool) -> None:
    """List the associations with what is pending, in conflict or failed.

    \b
    Example:
      fsxsync associations
      fsxsync associations --json | jq -r '.[] | select(.state != "AVAILABLE") | .failure'
    """
    rows = instance.client.associations()
    if as_json:
        output.document(rows)
        return
    output.table(COLUMNS, [_row(row) for row in rows])
    for row in rows:
        if row["failure"]:
            click.echo(f"{row['id']}: {escape(row['failure'])}")


def _row(row: Document) -> tuple[str, ...]:
    return (
        row["id"],
        row["path"],
        row["repository"],
        row["state"],
        output.words(row["import"]),
        output.words(row["export"]),
        str(row["pending"]),
        output.age(row["oldest_pending_s"]) if row["pending"] else "-",
        str(row["conflicts"]),
        str(row["errors"]),
    )


@click.group(short_help="Show, change or end one association.")
def association() -> None:
    """Show, change or end one association, named by its id or its path.

    \b
    Example:
      fsxsync association show /datasets
    """


@association.command()
@click.argument("word", metavar="ID|PATH")
@AS_JSON
@click.pass_obj
def show(instance: Instance, /, word: str, *, as_json: bool) -> None:
    """Show everything about one association.

    \b
    Example:
      fsxsync association show /datasets --json | jq .pending
    """
    row = instance.client.association(word)
    if as_json:
        output.document(row)
        return
    output.fields((name, _shown(name, value)) for name, value in row.items())


def _shown(name: str, value: Any) -> str:
    if name in {"import", "export"}:
        return output.words(value)
    if name == "features":
        return output.words(word for word, is_there in (value or {}).items() if is_there)
    if name == "recent_errors":
        return "\n".join(f"{item['path']}: {item['error']}" for item in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={one}" for key, one in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)


@association.command()
@click.argument("word", metavar="ID|PATH")
@association_options
@click.option("--read-only/--no-read-only", default=None, help="Export nothing; the mount answers EROFS.")
@click.option(
    "--accept-deletes",
    is_flag=True,
    help="Believe what was refused, however much is gone there or here: a stopped mass delete goes on.",
)
@click.pass_obj
def update(instance: Instance, /, word: str, *, accept_deletes: bool, **options: Any) -> None:
    """Change an association. Without any option it is tried again at once, if it was MISCONFIGURED.

    What is not named stays as it is. Path and repository can't be changed: delete it and associate again.

    \b
    Example:
      fsxsync association update /datasets --export new,changed --poll 300
      fsxsync association update /datasets --no-default-excludes --exclude '*.tmp' --max-size none
    """
    instance.client.update(word, members(options), accept_deletes=accept_deletes)


@association.command()
@click.argument("word", metavar="ID|PATH")
@click.option("--hydrate", is_flag=True, help="Load released files first, so that all data stays here.")
@click.option("--delete-data", is_flag=True, help="Remove the directory's content here; objects stay.")
@click.option("--force", is_flag=True, help="Don't wait for exports, and give up the data of released files.")
@click.pass_obj
def delete(instance: Instance, /, word: str, *, hydrate: bool, delete_data: bool, force: bool) -> None:
    """End an association. No object is ever deleted by this.

    Waits for pending exports first. Refuses if released files would lose their data, unless one of the options
    says what shall become of them.

    \b
    Example:
      fsxsync association delete /datasets --hydrate
    """
    instance.client.delete(word, delete_data=delete_data, force=force, hydrate=hydrate)
