"""A form from a pydantic model: one widget a field, its title, help and default from the schema."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import streamlit as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gfvizui.parts import plain


def section(
    model: type[BaseModel],
    path: str,
    start: Mapping[str, Any],
    fields: list[str],
    columns: int = 3,
    check: Callable[[str, Any], str | None] | None = None,
) -> dict:
    """Widgets for `fields` of `model` in `columns`; returns the values that differ from the model's defaults.

    `path` is the dotted key of the section (unique on the page), `start` holds the values to begin with, by the file's
    own keys. `check` says of a field's name and value what the schema cannot know. What is typed is kept while other
    pages are looked at.
    """
    values: dict[str, Any] = {}
    laid = st.columns(columns, gap="small", vertical_alignment="bottom")
    for index, name in enumerate(fields):
        field = model.model_fields[name]
        key = field.alias or name
        with laid[index % columns]:
            value = widget(f"{path}.{key}" if path else key, field, start.get(key, default_of(field)))
            wrong = fault(model, name, value) or (check(name, value) if check else None)
            if wrong:
                st.caption(f":red[:material/error: {plain(wrong)}]")
        if value != default_of(field):
            values[key] = value
    return values


@cache
def _checker(model: type[BaseModel], name: str) -> TypeAdapter:
    field = model.model_fields[name]
    # The field itself would bring its alias along, which means something in a model alone.
    annotation: Any = field.annotation
    return TypeAdapter(Annotated[annotation, *field.metadata] if field.metadata else annotation)


def fault(model: type[BaseModel], name: str, value: Any) -> str | None:
    """What the schema has against one field's value, in a line; None where it has nothing. Required and empty is one.

    >>> from gfviz.fusion.config import TrainingConfig
    >>> fault(TrainingConfig, "steps", 0), fault(TrainingConfig, "steps", 5), fault(TrainingConfig, "steps", None)
    ('Input should be greater than or equal to 1', None, None)
    """
    if value is None and model.model_fields[name].is_required():
        return "this is needed"
    try:
        _checker(model, name).validate_python(value)
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    return None


def default_of(field: FieldInfo) -> Any:
    """The field's default, None where it must be given."""
    if field.is_required():
        return None
    return field.get_default(call_default_factory=True)


def trimmed(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without those that say no more than the model's defaults: what a person would have written."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return {
        key: value
        for key, value in values.items()
        if key not in fields or fields[key].is_required() or value != default_of(fields[key])
    }


def simple_fields(model: type[BaseModel], but: tuple[str, ...] = ()) -> list[str]:
    """Fields that a single widget can hold."""
    return [name for name, field in model.model_fields.items() if name not in but and kind_of(field.annotation)]


def kind_of(annotation: Any) -> str | None:
    """ "choice", "bool", "int", "float", "text" or "lines" where one widget can hold the annotation, else None."""
    options = [part for part in _parts(annotation) if part is not type(None)]
    for kind, accepts in (
        ("choice", lambda part: get_origin(part) is Literal),
        ("lines", lambda part: part == list[str]),
        ("bool", lambda part: part is bool),
        ("float", lambda part: part is float),
        ("int", lambda part: part is int),
        ("text", lambda part: part is str),
    ):
        if any(accepts(part) for part in options):
            return kind
    return None


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for part in get_args(annotation) for inner in _parts(part)]
    return [annotation]


def widget(key: str, field: FieldInfo, value: Any) -> Any:
    """The widget of one field; an empty number or text means None where the field allows that."""
    label = f"{field.title or key.rsplit('.', 1)[-1]}"
    note = f"{field.description or ''} `{key}`".strip()
    kind = kind_of(field.annotation)
    optional = type(None) in _parts(field.annotation)
    if kind == "choice":
        choices = [choice for part in _parts(field.annotation) for choice in get_args(part)]
        listed = ["", *choices] if optional else choices
        at = listed.index(value) if value in listed else 0
        return st.selectbox(label, listed, index=at, key=key, help=note, persist_state="session") or None
    if kind == "bool":
        return st.toggle(label, value=bool(value), key=key, help=note, persist_state="session")
    if kind == "lines":
        text = "\n".join(value or [])
        lines = st.text_area(label, text, key=key, help=note, persist_state="session", height=70).splitlines()
        return [line.strip() for line in lines if line.strip()]
    if kind in ("int", "float") and not isinstance(value, (int, float)):
        value = None
    if kind == "int":
        return st.number_input(
            label, value=value, step=1, key=key, help=note, persist_state="session", placeholder="default"
        )
    if kind == "float":
        shown = None if value is None else float(value)
        return st.number_input(
            label,
            value=shown,
            step=None,
            format="%g",
            key=key,
            help=note,
            persist_state="session",
            placeholder="default",
        )
    given = st.text_input(label, value or "", key=key, help=note, persist_state="session")
    return given.strip() or (None if optional or field.is_required() else "")
