"""Marks of settings that do not enter the identity of a recipe."""

from collections.abc import Collection
from enum import Enum
from typing import TypeAlias

from pydantic import BaseModel

FieldTree: TypeAlias = dict[str, "bool | FieldTree"]  # fields by name; True: the whole field


class OutsideIdentity(Enum):
    """Marks a setting that does not enter `recipe_identity`. A setting without a mark always does."""

    ALWAYS = "changes speed or what is recorded, not the weights"
    UNLESS_POLICY_ACTS = "changes the weights only when watch.policy acts on an alarm, or watch.stop_at_best ends the run"


def list_marked_fields(kind: type[BaseModel], marks: Collection[OutsideIdentity]) -> FieldTree:
    """The fields of `kind` that carry one of `marks`, nested as `model_dump(exclude=...)` takes them."""
    tree: FieldTree = {}
    for name, field in kind.model_fields.items():
        if any(mark in field.metadata for mark in marks):
            tree[name] = True
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            tree[name] = list_marked_fields(field.annotation, marks)
    return tree
