"""What settings have in common: frozen models without extra keys, and kinds of values that several of them use."""

from __future__ import annotations

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

__all__ = ["Frozen", "PackSize", "Precision", "Text", "TrainedLayers"]

Precision = Literal["fp32", "bf16", "fp16"]
"""Number format of the UNet. Adapter weights are fp32 while they train; so is the VAE, unless it was made for fp16."""
TrainedLayers = Literal["attention", "crossattn_kv"]
"""Which layers of a block carry an update: all projections, or those through which it reads the prompt."""
Text = Annotated[str, StringConstraints(max_length=2000)]


def _one_fault(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Report a value that is neither of two kinds once, not once a kind."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError('1 to 64, or "auto"') from error


PackSize = Annotated[Annotated[int, Field(ge=1, le=64)] | Literal["auto"], WrapValidator(_one_fault)]


class Frozen(BaseModel):
    """Settings that do not change; extra keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
