"""A vision-language model as the judge (kind ``vision-language``): it rates images and gives its reason.

The oracle of the image tasks of Fast Direct (ICLR 2025), behind any endpoint that speaks OpenAI's chat completions.
May import pydantic, pilotwave and pilotwave_oracles; platformdirs inside a function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pilotwave.config.components import OracleConfig, path_in_campaign
from pilotwave.protocols import Oracle
from pilotwave_oracles.http import checked_ca_file, checked_url
from pilotwave_oracles.known_value import KnownValue
from pilotwave_oracles.secrets import check_headers

PROMPT = (
    'Does the description "{subject}" describe this image accurately? Rate it from {lowest} (not at all) to '
    "{highest} (perfectly), and give your reason in one sentence."
)

_FIELDS = ("{subject}", "{class_name}", "{lowest}", "{highest}")


class VisionLanguageOracleConfig(OracleConfig):
    """Asks a vision-language model for a rating and a reason.

    It runs in the evaluator itself and keeps the time limit on its own; many questions can be on their way at once
    (``runtime.evaluators``).
    """

    media: ClassVar[frozenset[str]] = frozenset({"image"})
    named_by: ClassVar[str] = "model"
    summary: ClassVar[str] = "A vision-language model rates images 1 to 5, with a reason."

    kind: Literal["vision-language"] = "vision-language"
    isolation: Literal["process", "thread"] = Field(
        "thread", description="Where the client runs: a thread is enough, and many may wait at once."
    )
    url: str = Field(
        "https://api.openai.com/v1", description="The endpoint; /chat/completions is added. E.g. of vLLM or ollama."
    )
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    subject: str | None = Field(
        None,
        min_length=1,
        description="What a good image shows, for {subject} in the prompt; null: what the image was asked to show.",
    )
    prompt: str = Field(
        PROMPT,
        min_length=1,
        description="The question, with {subject}, {class_name}, {lowest} and {highest}. How to answer is added.",
    )
    lowest: int = Field(1, ge=0, le=100, description="The worst rating.")
    highest: int = Field(5, ge=1, le=100, description="The best rating.")
    asks: int = Field(1, ge=1, le=100, description="How often each image is rated; the value is the mean.")
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="Of the model; null: leave it out, for models that refuse it."
    )
    max_tokens: int | None = Field(300, ge=1, description="Of an answer; null: leave it out.")
    answer_format: Literal["auto", "json-schema", "text"] = Field(
        "auto", description="Whether the endpoint is told the answer's schema; auto: yes, unless it refuses."
    )
    malformed_retries: int = Field(2, ge=0, le=20, description="Further asks after an answer without a rating.")
    smallest_side: int = Field(
        256, ge=1, le=4096, description="Smaller images are enlarged by a whole factor to at least so many pixels."
    )
    request_fields: dict[str, Any] = Field(
        default_factory=dict, description="Further fields of the request, e.g. {max_completion_tokens: 500}."
    )
    input_price: float | None = Field(
        None, ge=0, description="Price of a million input tokens; with prices, costs are money, else asks."
    )
    output_price: float | None = Field(None, ge=0, description="Price of a million output tokens.")
    cache: Path | Literal["default"] | None = Field(
        "default",
        description="Folder in which answers are kept, so that none is paid for twice; default: one of the user's, "
        "shared by all campaigns; null: none.",
    )
    reasons: Path | None = Field(
        None, description="A file that gets a line of JSON for each rating: query, rating, reason, model."
    )
    headers: dict[str, str] = Field(
        default={"Authorization": "Bearer ${OPENAI_API_KEY}"},
        description="Headers from environment variables; the values are recorded nowhere. {} for none.",
    )
    ca_file: Path | None = Field(
        None, description="Certificates of the authorities to trust (PEM) in place of the system's."
    )
    connect_seconds: float = Field(10.0, gt=0, le=600, description="How long connecting may take.")
    retries: int = Field(
        4, ge=0, le=100, description="Further tries of an ask after 408, 425, 429, 5xx or a lost connection."
    )
    retry_seconds: float = Field(
        2.0, gt=0, le=600, description="Pause before the second try; it doubles, unless the server says when."
    )
    deterministic: bool = Field(True, description="Whether a rating may be reused for the same image.")
    known: KnownValue | None = Field(None, description="A question whose answer you know, for the preflight.")

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        return checked_url(url).rstrip("/")

    @field_validator("headers")
    @classmethod
    def _name_variables(cls, headers: dict[str, str]) -> dict[str, str]:
        return check_headers(headers)

    @field_validator("ca_file")
    @classmethod
    def _resolve(cls, ca_file: Path | None, info: ValidationInfo) -> Path | None:
        return checked_ca_file(ca_file, info)

    @field_validator("cache", "reasons")
    @classmethod
    def _resolve_place(cls, place: Path | str | None, info: ValidationInfo) -> Path | str | None:
        return place if place is None or place == "default" else path_in_campaign(place, info)

    @model_validator(mode="after")
    def _fits_together(self) -> VisionLanguageOracleConfig:
        if self.lowest >= self.highest:
            raise ValueError(f"expected lowest below highest, got {self.lowest} and {self.highest}")
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("expected both input_price and output_price, or neither")
        clash = sorted({"model", "messages", "stream", "n", "response_format"} & set(self.request_fields))
        if clash:
            raise ValueError(f"expected request_fields that pilotwave does not set, got {clash[0]}")
        return self

    def question(self, class_name: str | None) -> str:
        """Returns the prompt for an image that was asked to show this."""
        texts = (self.subject or class_name or "", class_name or "", str(self.lowest), str(self.highest))
        filled = self.prompt
        for field, text in zip(_FIELDS, texts, strict=True):
            filled = filled.replace(field, text)
        return filled

    def build(self) -> Oracle:
        """Reads the environment; nothing is sent yet.

        Raises:
            InputError: A variable that a header names is not set, or ``ca_file`` holds no certificates.
        """
        from pilotwave_oracles.vision_language_oracle import VisionLanguageOracle

        return VisionLanguageOracle(self)


__all__ = ["PROMPT", "VisionLanguageOracleConfig"]
