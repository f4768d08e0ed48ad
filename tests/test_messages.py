"""What people read when something is wrong: every message says where, and what to do about it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from segtool import errors
from segtool.errors import Problem, SegtoolError
from segtool.runs import checkpoint

SOURCE = Path(errors.__file__).parent
KINDS = {
    kind.__name__
    for module in (errors, checkpoint)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, SegtoolError | Problem)
}
LEFT_OUT = {"LostError", "JobError", "Interrupted"}  # they stand beside the message of what went wrong
# A clause that begins with what to do, says what was expected, or is made by what is named so.
REMEDY = re.compile(
    r"\b(expected|must|needs|takes|goes? with|pip install|continue with)\b|`segtool |\?$|\{[^}]*(remedy|suggest)[^}]*\}"
    r"|(^|[;:,.(] (and |or |for it |else |it, |then )*)"
    r"(add|begin|cd|change|choose|close|continue|convert|copy|correct|cut|divide|end|export|fetch|fill|free|get|give"
    r"|install|keep|label|leave|list|lower|make|mend|move|name|put|raise|reinstall|remove|rename|restore|run|save"
    r"|set|start|train|try|turn|unset|upgrade|use|wait|write)\b"
)
READ = {
    "one of them hangs or is stopped": "gives the key that helps",
    "--resume makes the others when that is mended": "follows the disk's own message",
    "loss and gradient were finite, but what it made of": "the learning rate to try is added where it is told",
    "the step was not made": "as above",
    "meets the same batches again; with ": "a command to run",
    "problems, of which these are the first": "the heading of problems",
    "out of memory ": "explained by who was at work",
}


@dataclass(frozen=True)
class Message:
    """A message as it stands in the source, with `{}` for what is filled in."""

    place: str
    kind: str
    text: str


@cache
def messages() -> list[Message]:
    """Returns the message of each error that is made in the package, those aside that are filled in as a whole."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
    constants: dict[str, ast.expr] = {}
    for tree in trees.values():
        constants |= {name: value for name, value in assigned(nodes_of(tree)).items() if name.isupper()}
    found = [message for path, tree in trees.items() for message in in_module(path, tree, constants)]
    return [message for message in found if re.sub(r"\{[^}]*\}", "", message.text).strip(": ")]


def in_module(path: Path, tree: ast.Module, constants: Mapping[str, ast.expr]) -> Iterator[Message]:
    for scope in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))):
        named = {**constants, **assigned(nodes_of(scope))}
        for node in nodes_of(scope):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS - LEFT_OUT:
                for argument in node.args[1:] if node.func.id == "Problem" else node.args:
                    place = f"{path.relative_to(SOURCE)}:{argument.lineno}"
                    yield Message(place, node.func.id, text_of(argument, named))


def nodes_of(scope: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes of a function, those of functions within it aside."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from nodes_of(child)


def assigned(nodes: Iterator[ast.AST]) -> dict[str, ast.expr]:
    """Returns what is given to each name; what is added later comes behind it."""
    named: dict[str, ast.expr] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = node.value
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and node.target.id in named:
            named[node.target.id] = ast.BinOp(named[node.target.id], ast.Add(), node.value)
    return named


def text_of(node: ast.expr, named: Mapping[str, ast.expr]) -> str:
    """Returns a message with `{expression}` for what is filled in; of what is no message only that."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(text_of(part, named) for part in parts)
        case ast.FormattedValue(value):
            return text_of(value, named)
        case ast.BinOp(left, ast.Add(), right):
            return text_of(left, named) + text_of(right, named)
        case ast.Name(name) if isinstance(named.get(name), ast.Constant | ast.JoinedStr | ast.BinOp):
            return text_of(named[name], {key: value for key, value in named.items() if key != name})
    return "{" + re.sub(r"[{}\n]", "", ast.unparse(node)) + "}"


def faults(found: Iterable[Message]) -> list[str]:
    wrong = [
        f"{message.place}: says nothing of where, or what was found: {message.text}"
        for message in found
        if not re.search(r"\{|--|data|config|: ", message.text) and message.kind != "Problem"
    ]
    wrong += [
        f"{message.place}: does not say what to do, or what was expected: {message.text}"
        for message in found
        if not REMEDY.search(message.text) and not any(part in message.text for part in READ)
    ]
    return wrong


def test_every_message_says_what_was_found_and_what_to_do() -> None:
    assert faults(messages()) == []


def test_the_scan_sees_the_messages_of_all_modules() -> None:
    found = messages()
    assert len(found) > 200
    assert {"ConfigError", "DataError", "CheckpointError", "DiskError", "SegtoolError", "Problem"} <= {
        message.kind for message in found
    }
    assert any(message.place.startswith("data/") for message in found)


def test_a_message_without_a_remedy_is_seen() -> None:
    """Negative control: messages as they once were."""
    once = ["{path}: has no mask", "{path}: not JSON; the state is damaged", "{path}: cannot be read ({error})"]
    assert len(faults([Message("here.py:1", "DataError", text) for text in [*once, "failed; try again"]])) == 4


def test_no_exception_is_left_from_a_message_that_is_gone() -> None:
    texts = [message.text for message in messages()]
    assert [part for part in READ if not any(part in text for text in texts)] == []
    assert {kind.__name__ for kind in vars(errors).values() if inspect.isclass(kind)} >= LEFT_OUT


def test_the_tree_of_errors_tells_every_class_with_its_exit_code() -> None:
    told = dict(re.findall(r"^\W*(\w+Error|Interrupted) +(\d)?", inspect.getdoc(errors) or "", re.MULTILINE))
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, SegtoolError):
            assert name in told
            assert told[name] in ("", str(kind.exit_code)) or name == "Interrupted"
