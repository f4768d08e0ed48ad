"""Named components: encoders, decoders, upsamplers and losses, found by the name that a config gives.

A component registers itself with a decorator in the module of its kind, which is imported on first use. What stands
before the `*` of its `__init__` is given by the code that builds it; what stands after may be set from YAML, and its
annotation, default and docstring are its schema.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

from segtool.config.parsing import parse, suggest
from segtool.errors import ConfigError, Problem

MODULES = {
    "encoder": ("segtool.models.encoders", "segtool.models.torchvision_encoders", "segtool.models.timm_encoder"),
    "decoder": ("segtool.models.decoders",),
    "upsampler": ("segtool.models.upsamplers",),
    "loss": ("segtool.training.losses", "segtool.training.region_losses"),
}

_registered: dict[str, dict[str, type]] = {kind: {} for kind in MODULES}
T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Component:
    """A named part and the options that its signature accepts.

    In YAML a bare name, or a mapping with `name` and its options side by side. Options are held as plain data, as YAML
    gives them: lists for tuples, a bare name or a mapping for a component.
    """

    EXPECTED: ClassVar[str] = "a name or a mapping with `name` and its options"

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", {key: _plain(value) for key, value in self.options.items()})

    def plain(self) -> str | dict[str, Any]:
        """Returns what YAML says of it: the bare name where nothing is set, else the mapping."""
        typed = {f.name: getattr(self, f.name) for f in _typed(type(self)) if getattr(self, f.name) != f.default}
        settings = {**typed, **self.options}
        return {"name": self.name, **settings} if settings else self.name

    @classmethod
    def _of(cls, settings: Mapping[str, Any]) -> Self:
        typed = {f.name: settings[f.name] for f in _typed(cls) if f.name in settings}
        options = {key: value for key, value in settings.items() if key != "name" and key not in typed}
        return cls(settings["name"], options, **typed)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        hints = get_type_hints(cls)
        known = {"name": core_schema.typed_dict_field(core_schema.str_schema(min_length=1))}
        for f in _typed(cls):
            known[f.name] = core_schema.typed_dict_field(handler.generate_schema(hints[f.name]), required=False)
        body = core_schema.typed_dict_schema(known, extra_behavior="allow")
        mapping = core_schema.no_info_before_validator_function(_as_mapping, body)
        return core_schema.no_info_after_validator_function(cls._of, mapping)


@dataclass(frozen=True)
class Option:
    """One option of a component: its annotation, its default and the sentence about it in the docstring."""

    name: str
    annotation: Any
    default: Any
    doc: str


def register(kind: str, name: str) -> Callable[[T], T]:
    """Returns a decorator that makes a class known as `name` among the components of `kind`."""

    def add(cls: T) -> T:
        _registered[kind][name] = cls
        return cls

    return add


def names(kind: str) -> list[str]:
    """Returns the names that a config may give for `kind`, in the order of their definition."""
    for module in MODULES[kind]:
        importlib.import_module(module)
    return list(_registered[kind])


def lookup(kind: str, name: str, *, path: str) -> type:
    """Returns the class of a component. Raises ConfigError naming `path` when there is none of that name."""
    known = names(kind)
    if name not in known:
        raise ConfigError(Problem(path, f"unknown {kind} '{name}'{suggest(name, known)}"))
    return _registered[kind][name]


def options(cls: type) -> dict[str, Option]:
    """Returns what may be set of a component: the keyword-only parameters of its `__init__`."""
    hints = get_type_hints(cls.__init__)
    docs = _argument_docs(cls)
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {
        p.name: Option(p.name, hints.get(p.name, Any), p.default, docs.get(p.name, ""))
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def filled(kind: str, component: Component) -> Component:
    """Returns a component with the defaults of the options that it does not set; one of an unknown name as it is."""
    if component.name not in names(kind):
        return component
    known = options(_registered[kind][component.name])
    defaults = {name: option.default for name, option in known.items() if option.default is not inspect.Parameter.empty}
    return replace(component, options={**defaults, **component.options})


def build(kind: str, component: Component, *positional: Any, path: str) -> Any:
    """Returns the component, built with `positional` and its checked options.

    An option that is a component itself keeps the name and options of its default where a mapping gives no `name`.

    Raises:
        ConfigError: unknown name or option, one that is missing, or a value of the wrong type, all at once, each named
            by its dotted `path`; or what the component's `__init__` says in a ValueError about its options.
    """
    cls = lookup(kind, component.name, path=path)
    known, typed = options(cls), [f.name for f in _typed(type(component))]
    owners = {} if component.options.keys() <= known.keys() else _owners(kind, component, path)
    settings = _checked(known, component.options, path, also=["name", *typed], owners=owners)
    try:
        return cls(*positional, **settings)
    except ValueError as error:
        raise ConfigError(Problem(path, str(error))) from error
    except (RuntimeError, OverflowError, TypeError) as error:
        if not _is_of_size(error):
            raise
        raise ConfigError(Problem(path, f"too large to build ({error}); give it smaller numbers")) from error


def _owners(kind: str, component: Component, path: str) -> dict[str, str]:
    """Returns, for the options that another one of the kind has, what to do where its name alone was changed."""
    own = options(_registered[kind][component.name])
    return {
        option: f"unknown key: it is one of '{name}', not of '{component.name}'; take it out, or set all anew: "
        f"--set '{path}={{name: {component.name}}}'"
        for name in reversed(names(kind))
        for option in options(_registered[kind][name])
        if option not in own
    }


def _is_of_size(error: Exception) -> bool:
    """Whether torch complains of numbers beyond any machine; that the memory of this one runs out is no such thing."""
    words = ("overflow", "too large", "too big")
    return isinstance(error, OverflowError) or any(word in str(error).lower() for word in words)


def _checked(
    known: Mapping[str, Option], given: Mapping[str, Any], path: str, *, also: Sequence[str], owners: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the given options as their annotations say.

    Args:
        also: What could stand beside them.
        owners: What to say of the options that others of the kind have.
    """
    problems: list[str | Problem] = []
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            told = owners.get(name) or f"unknown key{suggest(name, [*known, *also])}"
            problems.append(Problem(f"{path}.{name}", told))
            continue
        try:
            checked[name] = parse(known[name].annotation, _named(known[name], value), path=f"{path}.{name}")
        except ConfigError as error:
            problems += error.details
    missing = [o.name for o in known.values() if o.default is inspect.Parameter.empty and o.name not in given]
    problems += [Problem(f"{path}.{name}", "missing, and it has no default; add it") for name in missing]
    if problems:
        raise ConfigError(*problems)
    return checked


def _named(option: Option, value: Any) -> Any:
    """Returns `value`, with the default component under it where it is one's options without a name."""
    if isinstance(option.default, Component) and isinstance(value, Mapping) and "name" not in value:
        return {"name": option.default.name, **option.default.options, **value}
    return value


def _typed(cls: type[Component]) -> list[Any]:
    """Returns the fields that a kind of component has of its own, such as a loss's weight."""
    return [f for f in fields(cls) if f.name not in ("name", "options")]


def _as_mapping(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.plain()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _argument_docs(cls: type) -> dict[str, str]:
    """Returns the sentences under `Args:` of the docstrings of a class, its bases and its `__init__`, by argument."""
    docs: dict[str, str] = {}
    sources = [cls.__init__.__doc__, *(base.__dict__.get("__doc__") for base in reversed(cls.__mro__))]
    for source in sources:
        docs |= _arguments_in(inspect.cleandoc(source or ""))
    return docs


def _arguments_in(doc: str) -> dict[str, str]:
    docs: dict[str, str] = {}
    current = None
    inside = False
    for line in doc.splitlines():
        if line and not line.startswith(" "):
            inside = line == "Args:"
        elif inside and line.startswith("    ") and not line.startswith("     "):
            current, _, text = line.strip().partition(": ")
            docs[current] = text
        elif inside and current and line.strip():
            docs[current] += " " + line.strip()
    return docs
