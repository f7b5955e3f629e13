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
    AT_DEFAULT = "is newer than the first recipes: at its default it changes nothing, and the digests of earlier runs stay"


def list_marked_fields(kind: type[BaseModel], marks: Collection[OutsideIdentity]) -> FieldTree:
    """The fields of `kind` that carry one of `marks`, nested as `model_dump(exclude=...)` takes them."""
    tree: FieldTree = {}
    for name, field in kind.model_fields.items():
        if any(mark in field.metadata for mark in marks):
            tree[name] = True
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            tree[name] = list_marked_fields(field.annotation, marks)
    return tree


def list_defaulted_fields(settings: BaseModel) -> FieldTree:
    """The fields marked AT_DEFAULT that hold their default, nested as `model_dump(exclude=...)` takes them."""
    tree: FieldTree = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if OutsideIdentity.AT_DEFAULT in field.metadata and value == field.get_default(call_default_factory=True):
            tree[name] = True
        elif isinstance(value, BaseModel) and (inner := list_defaulted_fields(value)):
            tree[name] = inner
    return tree


def merge_fields(a: FieldTree, b: FieldTree) -> FieldTree:
    """The fields of both trees."""
    merged = dict(a)
    for name, theirs in b.items():
        own = merged.get(name)
        merged[name] = merge_fields(own, theirs) if isinstance(own, dict) and isinstance(theirs, dict) else True if own is True else theirs
    return merged
