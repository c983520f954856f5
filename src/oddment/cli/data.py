"""`oddment data`: the data sets that experiments run on: where they are, how to get them, whether they are right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oddment.cli._shared import Bars, Debug, Json, Quiet, consoles, print_json, reporting
from oddment.errors import DataError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oddment.data.verify import Check

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="List, download and check the data sets that experiments run on.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(help="mnist, fashion-mnist or deepweeds.", show_default=False)]
NameOrFolder = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="mnist, fashion-mnist, deepweeds, or a folder in MVTec's layout.", show_default=False
    ),
]


@app.command("list")
def list_(as_json: Json = False, debug: Debug = False) -> None:
    """Show every data set and where it lies on this machine.

    Looked for in $ODDMENT_DATA/NAME, then in the user's cache folder, then where Debian installs it. Folders in MVTec's
    layout inside the first two are listed as well.
    """
    with reporting(debug=debug):
        from oddment.data.catalog import CATALOG, data_folders, find_folder

        rows = [
            {
                "name": item.name,
                "title": item.title,
                "images": item.n_images,
                "download_mb": item.download_mb,
                "licence": item.licence,
                "source": item.source,
                "folder": _text(find_folder(item)),
            }
            for item in CATALOG.values()
        ]
        own = [{"name": name, "folder": str(folder)} for name, folder in _mvtec_folders(data_folders())]
        if as_json:
            print_json({"data_sets": rows, "mvtec": own, "looked_in": [str(folder) for folder in data_folders()]})
            return
        out, _ = consoles()
        for row in rows:
            out.print(
                f"[bold]{row['name']}[/bold]  {row['title']}, {row['images']:,} images, {row['licence']}",
                soft_wrap=True,
            )
            hint = f"[dim]not here: oddment data get {row['name']} ({row['download_mb']} MB)[/dim]"
            out.print(f"  {_plain(str(row['folder']))}" if row["folder"] else f"  {hint}", soft_wrap=True)
        for entry in own:
            out.print(
                f"[bold]{_plain(entry['name'])}[/bold]  MVTec layout\n  {_plain(entry['folder'])}", soft_wrap=True
            )


@app.command("get")
def get(
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Download into DIR/NAME instead of the cache folder.", show_default=False),
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A folder on the web to use instead of the public mirrors. Repeatable."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download a data set, unless it is here already, and check it.

    Mirrors are tried in turn. An interrupted download goes on where it stopped when the command is repeated. A file
    gets its name only when it is whole and the SHA-256 of its content is right.
    """
    with reporting(debug=debug):
        from oddment.data.catalog import cache_folder, data_set, find_folder
        from oddment.data.download import get as download
        from oddment.data.verify import verify as check

        wanted = data_set(name)
        target = (to or cache_folder()) / wanted.name
        here = None if to else find_folder(wanted)
        if here is None or here == target:
            here = download(wanted, target, mirrors=mirror or (), progress=Bars(quiet=quiet))
        checks = check(wanted, here)
        _refuse_wrong(here, checks)
        if as_json:
            print_json({"name": wanted.name, "folder": str(here), "checks": _as_dicts(checks)})
        elif not quiet:
            consoles()[0].print(f"{wanted.name} is in {_plain(str(here))}; {wanted.licence}.", soft_wrap=True)


@app.command("path")
def path(name: NameOrFolder, as_json: Json = False, debug: Debug = False) -> None:
    """Print the folder of a data set, for scripts; exit with 3 if it is not here."""
    with reporting(debug=debug):
        known, folder = _resolve(name)
        if as_json:
            print_json({"name": known or folder.name, "folder": str(folder)})
        else:
            typer.echo(str(folder))


@app.command("verify")
def verify(name: NameOrFolder, as_json: Json = False, debug: Debug = False) -> None:
    """Check a data set's files: the SHA-256 of their content and the numbers of images; exit with 3 if one is wrong."""
    with reporting(debug=debug):
        from oddment.data.catalog import CATALOG
        from oddment.data.verify import verify as check
        from oddment.data.verify import verify_mvtec

        known, folder = _resolve(name)
        checks = check(CATALOG[known], folder) if known else verify_mvtec(folder)
        if as_json:
            right = all(item.ok for item in checks)
            print_json({"name": known or folder.name, "folder": str(folder), "ok": right, "checks": _as_dicts(checks)})
        else:
            out, _ = consoles()
            out.print(_plain(str(folder)), soft_wrap=True)
            for item in checks:
                mark = "[green]right[/green]" if item.ok else "[bold red]wrong[/bold red]"
                out.print(f"  {mark}  {_plain(item.name)}: {_plain(item.note)}", soft_wrap=True)
        _refuse_wrong(folder, checks)


def _resolve(name: str) -> tuple[str | None, Path]:
    """The name of a known data set and its folder; no name for a folder in MVTec's layout."""
    from oddment.data.catalog import CATALOG, data_folders, folder_of
    from oddment.data.folders import is_mvtec

    if name.lower() in CATALOG:
        return name.lower(), folder_of(CATALOG[name.lower()])
    candidates = [Path(name), *(folder / name for folder in data_folders())]
    found = [candidate for candidate in candidates if name and candidate.is_dir()]
    for candidate in found:
        if is_mvtec(candidate):
            return None, candidate.resolve()
    known = ", ".join(CATALOG)
    if found:
        inside = [entry for entry, _ in _mvtec_folders([found[0]])]
        hint = f" It holds {', '.join(inside[:5])}: name one of these." if inside else ""
        msg = f"{found[0]}: not in MVTec's layout, which has train/good/ and test/, and none of {known}.{hint}"
        raise DataError(msg)
    msg = f"{name!r} is neither one of {known} nor a folder, here or in {', '.join(map(str, data_folders()))}."
    raise ParameterError(msg)


def _mvtec_folders(roots: Sequence[Path]) -> list[tuple[str, Path]]:
    """Folders in MVTec's layout inside these, one or two levels down, each with the name that finds it."""
    from oddment.data.folders import is_mvtec, subfolders

    found = []
    for root in roots:
        for outer in subfolders(root) if root.is_dir() else []:
            inner = [] if is_mvtec(outer) else subfolders(outer)
            found += [(str(item.relative_to(root)), item) for item in (outer, *inner) if is_mvtec(item)]
    return found


def _refuse_wrong(folder: Path, checks: Sequence[Check]) -> None:
    wrong = [item for item in checks if not item.ok]
    if wrong:
        lines = "".join(f"\n  {item.name}: {item.note}" for item in wrong)
        msg = f"{folder} is not as it should be:{lines}\nDelete what is wrong there and download or copy it again."
        raise DataError(msg)


def _as_dicts(checks: Sequence[Check]) -> list[dict[str, object]]:
    return [{"name": item.name, "ok": item.ok, "note": item.note} for item in checks]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _plain(text: str) -> str:
    """The text as it is: Rich would take what stands in brackets for markup."""
    return text.replace("[", "\\[")
