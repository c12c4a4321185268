"""What settings have in common: frozen models without extra keys, and kinds of values that several of them use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

__all__ = ["Frozen", "PackSize", "Precision", "Text", "TrainedLayers", "one_fault"]

Precision = Literal["fp32", "bf16", "fp16"]
"""Number format of the UNet. Adapter weights are fp32 while they train; so is the VAE, unless it was made for fp16."""
TrainedLayers = Literal["attention", "crossattn_kv"]
"""Which layers of a block carry an update: all projections, or those through which it reads the prompt."""
Text = Annotated[str, StringConstraints(max_length=2000)]


def one_fault(accepted: str) -> Callable[[Any, ValidatorFunctionWrapHandler], Any]:
    """Report a value that is of none of several kinds once, not once a kind."""

    def checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            raise ValueError(accepted) from error

    return checked


PackSize = Annotated[
    Annotated[int, Field(ge=1, le=64)] | Literal["auto"], WrapValidator(one_fault('1 to 64, or "auto"'))
]


class Frozen(BaseModel):
    """Settings that do not change; extra keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
