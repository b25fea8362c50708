"""The JSON contract between pilotwave and a judge in another program or on another machine, version 1.

One request asks about one sample; one reply holds a value or a failure. ``docs/oracles/contract.md`` explains it
and ``docs/oracles/contract.schema.json`` is its JSON Schema, written by ``python -m pilotwave_oracles.contract``.
May import pydantic, pilotwave and pilotwave_oracles; RDKit inside functions.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pilotwave.errors import OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample
from pilotwave.types import Answer
from pilotwave_oracles.sample_files import npy_bytes, png_bytes, xyz_of

CONTRACT_VERSION = 1

STAGE = "contract"
"""The stage of a failure that is the reply's own: it is no reply by this contract."""

Array = Literal["list", "npy"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MoleculePart(_Part):
    """A molecule."""

    media: Literal["molecule"] = "molecule"
    smiles: str = Field(description="Canonical SMILES without explicit hydrogens.")
    mol_block: str = Field(description="MDL mol block with all hydrogens and coordinates in Å.")
    xyz: str | None = Field(description="The same as an XYZ file; null if the mol block cannot be read as one.")
    charge: int | None = Field(description="Total charge in e; null as xyz is.")
    multiplicity: int | None = Field(description="Spin multiplicity, 1 for closed shells; null as xyz is.")


class ImagePart(_Part):
    """An image, as a PNG file (to a program) or in the request itself (over the network)."""

    media: Literal["image"] = "image"
    width: int
    height: int
    channels: Literal[1, 3, 4] = Field(description="1 grey, 3 RGB, 4 RGBA; 8 bits each.")
    class_name: str | None = Field(description="What the image was asked to show, or null.")
    png_file: str | None = Field(None, description="Path of the PNG file, readable while the question is open.")
    png_base64: str | None = Field(None, description="The PNG file in base64.")


class ArrayPart(_Part):
    """An array of 32-bit floats."""

    media: Literal["array"] = "array"
    shape: list[int]
    values: list[Any] | float | None = Field(None, description="Nested lists, row by row.")
    npy_file: str | None = Field(None, description="Path of a .npy file, readable while the question is open.")


class Request(_Part):
    """What a judge is asked."""

    contract: Literal[1] = Field(1, description="Version of this contract.")
    query_id: str = Field(description="The idempotency key: the same id is the same question.")
    attempt: int = Field(ge=1, description="1 for the first attempt at this question.")
    sample: Annotated[MoleculePart | ImagePart | ArrayPart, Field(discriminator="media")]


class ReplyFailure(BaseModel):
    """Why there is no value."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    stage: str = Field(min_length=1, description="The stage of the work that failed, e.g. parse, scf, relax.")
    message: str = Field(min_length=1, description="One line: what went wrong.")
    retryable: bool = Field(
        False, strict=True, description="true if another attempt at the same sample may succeed."
    )


class Reply(BaseModel):
    """What a judge answers: exactly one of value and failure. Keys that are not named here are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    contract: Literal[1] = Field(1, description="Version of this contract.")
    query_id: str | None = Field(None, description="If given, it must be the one that was asked.")
    value: float | None = Field(None, strict=True, description="In the judge's unit and sign; finite.")
    unit: str | None = Field(None, description="If given, it must be the unit in the campaign file.")
    properties: dict[str, Annotated[float, Field(strict=True)]] = Field(
        default_factory=dict, description="Further numbers, kept with the answer."
    )
    fidelity: str | None = Field(None, min_length=1, description="Level of theory or quality, e.g. gfn2.")
    cost: float | None = Field(
        None, ge=0, strict=True, description="What this attempt cost, in the judge's own unit; 1 if not given."
    )
    failure: ReplyFailure | None = None

    @model_validator(mode="after")
    def _value_or_failure(self) -> Reply:
        if (self.value is None) == (self.failure is None):
            raise ValueError("expected exactly one of value and failure")
        return self


def contract_schema() -> dict[str, Any]:
    """Returns the JSON Schemas of a request and a reply."""
    return {
        "contract": CONTRACT_VERSION,
        "request": Request.model_json_schema(),
        "reply": Reply.model_json_schema(),
    }


def write_request(sample: Sample, context: QueryContext, folder: Path | None = None, arrays: Array = "list") -> str:
    """Returns a request as one line of JSON.

    Args:
        sample: What is asked about.
        context: The id and attempt.
        folder: Where files may be written for the judge (images, ``.npy``); None: everything is in the request.
        arrays: Whether an array is a list in the request or a file; always a list without a folder.

    Raises:
        OracleFailure: Stage ``"encode"``: the sample cannot be put into a request.
    """
    part: MoleculePart | ImagePart | ArrayPart
    if isinstance(sample, MoleculeSample):
        part = _molecule_part(sample)
    elif isinstance(sample, ImageSample):
        part = _image_part(sample, folder)
    elif isinstance(sample, ArraySample):
        part = _array_part(sample, folder if arrays == "npy" else None)
    else:
        raise OracleFailure(f"the contract has no words for {sample.media} samples", stage="media")
    return Request(query_id=context.query_id, attempt=context.attempt, sample=part).model_dump_json()


def read_reply(text: str | bytes, query_id: str, unit: str = "") -> Answer:
    """Returns what a judge answered.

    Args:
        text: The reply, JSON.
        query_id: Of the question.
        unit: The unit that is expected; "" if none is.

    Raises:
        OracleFailure: The judge's own failure, or stage ``"contract"`` if this is no reply to the question.
    """
    reply = parse_reply(text)
    if reply.query_id not in (None, query_id):
        raise OracleFailure(f"expected a reply to {query_id}, got one to {reply.query_id!r:.60}", stage=STAGE)
    if reply.failure is not None:
        failure = reply.failure
        raise OracleFailure(failure.message, stage=failure.stage, retryable=failure.retryable, cost=reply.cost)
    if reply.unit is not None and reply.unit != unit:
        raise OracleFailure(f"expected a value in {unit or 'no unit'}, got {reply.unit!r:.60}", stage=STAGE)
    assert reply.value is not None
    cost = 1.0 if reply.cost is None else reply.cost
    return Answer(reply.value, dict(reply.properties), reply.fidelity or "standard", cost)


def parse_reply(text: str | bytes) -> Reply:
    """Reads a reply.

    Raises:
        OracleFailure: Stage ``"contract"``; one line that says what is wrong with it.
    """
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(fields, dict):
            raise ValueError(f"a JSON object, got {type(fields).__name__}")
        return Reply.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "reply"
        message = f"{where}: {first['msg'].removeprefix('Value error, ')}"
    except (ValueError, RecursionError, OverflowError) as error:
        message = f"expected {error}" if str(error).startswith("a JSON") else str(error)
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    shown = " ".join(shown[:2000].split())
    raise OracleFailure(f"the reply is not by the contract: {message}; got {shown!r:.120}", stage=STAGE)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"numbers must be finite, got {name}")


def _molecule_part(sample: MoleculeSample) -> MoleculePart:
    try:
        xyz = xyz_of(sample)
    except (OracleFailure, ImportError):  # a judge that wants SMILES only can answer all the same
        return MoleculePart(
            smiles=sample.smiles, mol_block=sample.mol_block, xyz=None, charge=None, multiplicity=None
        )
    return MoleculePart(
        smiles=sample.smiles,
        mol_block=sample.mol_block,
        xyz=xyz.text,
        charge=xyz.charge,
        multiplicity=xyz.multiplicity,
    )


def _image_part(sample: ImageSample, folder: Path | None) -> ImagePart:
    height, width, channels = sample.pixels.shape
    data = png_bytes(sample)
    part = ImagePart(width=width, height=height, channels=channels, class_name=sample.class_name)
    if folder is None:
        return part.model_copy(update={"png_base64": base64.b64encode(data).decode()})
    path = folder / "sample.png"
    path.write_bytes(data)
    return part.model_copy(update={"png_file": str(path)})


def _array_part(sample: ArraySample, folder: Path | None) -> ArrayPart:
    shape = list(sample.array.shape)
    if folder is not None:
        path = folder / "sample.npy"
        path.write_bytes(npy_bytes(sample))
        return ArrayPart(shape=shape, npy_file=str(path))
    if not np.isfinite(sample.array).all():
        raise OracleFailure("an array that is not finite has no place in JSON", stage="encode")
    return ArrayPart(shape=shape, values=sample.array.astype(np.float64).tolist())


if __name__ == "__main__":
    print(json.dumps(contract_schema(), indent=2))

__all__ = [
    "CONTRACT_VERSION",
    "STAGE",
    "Array",
    "Reply",
    "ReplyFailure",
    "Request",
    "contract_schema",
    "parse_reply",
    "read_reply",
    "write_request",
]
