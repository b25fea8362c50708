"""3D emoji as training pictures: fetched once from two npm packages, scaled to 64x64 over white, cached.

`@lobehub/fluent-emoji-3d` 1.1.0 (MIT) holds 3,391 of Microsoft's Fluent emoji, 256x256 on transparent ground;
`unicode-emoji-json` 0.9.0 (MIT) says to which of Unicode's nine groups an emoji belongs: these are the classes.

May import numpy, the modules beside it, pilotwave's errors and storage; pillow and platformdirs inside functions.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np

from pilotwave.backbones.image.dataset import LabelledImages
from pilotwave.backbones.image.folder import HELD_OUT_PERCENT, picture_from_bytes
from pilotwave.backbones.image.sources import Source
from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.storage import write_atomically

PICTURES = "@lobehub/fluent-emoji-3d@1.1.0"
GROUPS = "unicode-emoji-json@0.9.0"
SIDE = 64
FORMAT_VERSION = 1
NPM_SECONDS = 300
CLASS_NAMES = (
    "smileys",
    "people",
    "animals",
    "food",
    "travel",
    "activities",
    "objects",
    "symbols",
    "flags",
)
"""The classes, in the order of :data:`GROUP_WORDS`."""
GROUP_WORDS = ("Smileys", "People", "Animals", "Food", "Travel", "Activities", "Objects", "Symbols", "Flags")
"""How Unicode's names of the groups begin."""
_SKIN_TONES = frozenset({"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
_VARIATION = "FE0F"


def load_emoji(cache: Path | None = None, side: int = SIDE) -> Source:
    """Loads the emoji; the first time they are fetched with npm and scaled, in about a minute.

    Args:
        cache: Folder of the prepared pictures; the user's cache if None.
        side: 64 pixels, or 32: the means of two by two.

    Raises:
        MissingDependencyError: They were never prepared, and npm or pillow is not installed.
        InputError: npm could not fetch them.
    """
    if cache is None:
        import platformdirs

        cache = Path(platformdirs.user_cache_dir("pilotwave"))
    path = cache / f"fluent-emoji-{SIDE}-{FORMAT_VERSION}.npz"
    if not path.exists():
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **_prepare(cache))  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())
    with np.load(path) as arrays:
        images, factor = arrays["images"], SIDE // side
        if factor > 1:
            blocks = images.reshape(len(images), side, factor, side, factor, 3)
            images = blocks.mean((2, 4)).round().astype(np.uint8)
        whole = LabelledImages(images, arrays["labels"], CLASS_NAMES)
        held_out = arrays["held_out"]
    return Source(
        whole.select(np.flatnonzero(~held_out)),
        whole.select(np.flatnonzero(held_out)),
        "Fluent emoji in 3D",
        f"Microsoft; from the npm package `{PICTURES}`, classes from `{GROUPS}`.",
        "MIT, both packages.",
    )


def is_held_out(name: str) -> bool:
    """Says whether the emoji of a file name is held out; all skin tones of one are on the same side."""
    design = "-".join(point for point in code_points(name) if point not in _SKIN_TONES)
    return int.from_bytes(hashlib.sha256(design.encode()).digest()[:4], "big") % 100 < HELD_OUT_PERCENT


def code_points(name: str) -> tuple[str, ...]:
    """Returns the code points that a file name spells, upper-case hexadecimal, without the variation selector."""
    points = [point.upper().zfill(4) for point in name.replace("_", "-").split("-")]
    return tuple(point for point in points if point != _VARIATION)


def fetch(package: str, folder: Path) -> Path:
    """Fetches an npm package, unless it is there.

    Args:
        package: Name and version, e.g. ``"unicode-emoji-json@0.9.0"``.
        folder: Where the .tgz goes.

    Returns:
        Its path.

    Raises:
        MissingDependencyError: npm is not installed.
        InputError: npm failed; the message ends with what it said.
    """
    path = folder / (package.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz")
    if path.exists():
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise MissingDependencyError(
            f"the emoji are fetched with npm ({package}), which is not installed; run: apt install npm"
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", package, "--pack-destination", str(folder), "--silent"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NPM_SECONDS, check=False)
        said = done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired:
        said = [f"no answer in {NPM_SECONDS} s"]
    if not path.exists():
        reason = said[-1] if said else "it gave no reason"
        raise InputError(f"npm could not fetch {package} ({reason}); check the network and run this again")
    return path


def _prepare(cache: Path) -> dict[str, np.ndarray]:
    """Reads both packages without unpacking them; order by name."""
    classes = _class_of_each(fetch(GROUPS, cache))
    images, labels, held_out = [], [], []
    with tarfile.open(fetch(PICTURES, cache)) as archive:
        members = {Path(m.name).stem: m for m in archive.getmembers() if m.name.endswith(".webp")}
        for name in sorted(members):
            points = tuple(point for point in code_points(name) if point not in _SKIN_TONES)
            file = archive.extractfile(members[name])
            if file is None or points not in classes:
                continue
            images.append(picture_from_bytes(file.read(), f"{PICTURES}: {name}.webp", SIDE))
            labels.append(classes[points])
            held_out.append(is_held_out(name))
    return {"images": np.stack(images), "labels": np.array(labels, dtype=np.int64), "held_out": np.array(held_out)}


def _class_of_each(package: Path) -> dict[tuple[str, ...], int]:
    """Returns the class of every emoji, by its code points."""
    with tarfile.open(package) as archive:
        file = archive.extractfile("package/data-by-emoji.json")
        table = {} if file is None else json.load(file)
    return {
        code_points("-".join(f"{ord(character):04X}" for character in emoji)): GROUP_WORDS.index(
            known["group"].split()[0]
        )
        for emoji, known in table.items()
    }


__all__ = ["CLASS_NAMES", "SIDE", "code_points", "fetch", "is_held_out", "load_emoji"]
