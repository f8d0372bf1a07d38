"""What ``--overwrite`` may replace: an artifact of ours, with nothing of anybody else's in it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.files import refuse_existing
from dropclass_deploy.core.manifest import EVIDENCE, MANIFEST, Manifest, read_manifest

_REMEDY = "choose another folder with -o, or move it away"


def check_replaceable(output: Path, *, overwrite: bool) -> None:
    """Refuse an output that an export must not replace; one that is missing or an empty folder is fine.

    Raises:
        UserError: when something stands there and ``overwrite`` is False, when it is no artifact, or when it holds a file
            that is neither the manifest, nor listed in it, nor below ``evidence/``.
    """
    refuse_existing(output, overwrite=overwrite, marker=MANIFEST)
    if not (output / MANIFEST).is_file():
        return
    try:
        manifest = read_manifest(output)
    except ArtifactError as error:
        raise UserError(
            f"the output {output} is no artifact of ours ({error.found}), and --overwrite replaces artifacts only",
            remedy=_REMEDY,
        ) from error
    foreign = _first_foreign(output, manifest)
    if foreign is not None:
        raise UserError(
            f"the output {output} holds {foreign!r}, which no export wrote, and --overwrite replaces artifacts only",
            remedy=_REMEDY,
        )


def _first_foreign(folder: Path, manifest: Manifest) -> str | None:
    """The first entry that is not the artifact's own, by name; links count as what they are called."""
    own = {PurePosixPath(name) for name in (*manifest.files, MANIFEST)}
    folders = {parent for name in own for parent in name.parents}
    for path in sorted(folder.rglob("*")):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        if name.parts[0] != EVIDENCE and name not in (folders if path.is_dir() and not path.is_symlink() else own):
            return str(name)
    return None
