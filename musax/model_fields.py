"""Former location of names of `musax.model_config`."""

from musax.model_config import ModelConfigError, build_part, changed_fields, check_fields

__all__ = ["ModelConfigError", "build_part", "changed_fields", "check_fields"]
