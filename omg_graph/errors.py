"""What can go wrong, one class for each phase; a message says: expected X, got Y: do Z."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class OmgError(Exception):
    """An error a user can act on: the command line prints it as one line and exits with code 2."""

    exit_code = 2


class DataError(OmgError):
    """An input file or array that can't be used."""


class UnsafeFileError(DataError):
    """A file that asks for something beyond plain data, refused before anything in it is run."""


class SchemaError(OmgError):
    """A plan schema that makes no sense."""


class PlanError(OmgError):
    """No candidate plan obeys the schema."""


class PlannerError(OmgError):
    """A planner's language model that can't be reached, refuses a request, or has used up its calls."""


class EncoderError(OmgError):
    """A text or observation encoder that is missing, damaged or of the wrong kind."""


class KnowledgeBaseError(OmgError):
    """A knowledge base that is damaged, empty or made by another model."""


class ModelError(OmgError):
    """A model folder that is incomplete, damaged or doesn't fit the data."""


class ConfigError(OmgError):
    """A setting that is unknown or out of range."""


class DeviceError(OmgError):
    """A device that isn't there."""


def first_fault(error: ValidationError, whole: str = "the whole") -> str:
    """What pydantic finds wrong first, in one line: where, as ``a.b``, and why.

    Args:
        error: What pydantic raised.
        whole: What to call the place where the fault isn't in a part of it.
    """
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or whole
    return f"{place}: {' '.join(first['msg'].removeprefix('Value error, ').split())}"
