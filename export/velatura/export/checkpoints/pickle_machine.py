"""An interpreter for the part of pickle that checkpoints use; it makes data and calls nothing else.

The standard unpickler can be told which globals to find, but not how much to allocate: it trusts
lengths, hashes any key (a nest of shared tuples takes for ever) and has no limit to its work. Here
every opcode is read from the table of `pickletools`, most are refused, and what is left counts
against a `Budget`. Bytes stay where they are, in the mapped file; nothing is ever imported.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from velatura.export.checkpoints.inert import Function, NumpyType, Record, RefusedPickleError

_CODES = {op.name: ord(op.code) for op in pickletools.opcodes}
_NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
_LONGEST_NAME = 256  # bytes of a module's or class's name
_LONGEST_INTEGER = 16  # bytes; torch's magic number has ten


@dataclass(frozen=True)
class Limits:
    """How much a file may ask for. A 1024 px generator takes 25,000 opcodes; a file holds three."""

    file_bytes: int = 2 * 2**30
    opcodes: int = 200_000
    text_bytes: int = 16 * 2**20
    """Of all strings together."""
    depth: int = 100
    """Of containers within containers."""
    elements: int = 2_000_000
    """Of the tree that one would walk, shared parts counted each time they are met."""


@dataclass
class Budget:
    """What is left of the limits, for a file and all pickles inside it."""

    limits: Limits
    opcodes: int = 0
    text_bytes: int = 0
    stored_elements: int = 0
    viewed_elements: int = 0

    def spend_opcode(self) -> None:
        self.opcodes += 1
        if self.opcodes > self.limits.opcodes:
            raise RefusedPickleError(f"the pickle has more than {self.limits.opcodes} opcodes")

    def spend_text(self, nbytes: int) -> None:
        self.text_bytes += nbytes
        if self.text_bytes > self.limits.text_bytes:
            raise RefusedPickleError(
                f"the pickle's strings have more than {self.limits.text_bytes} bytes"
            )

    def require_backed(self) -> None:
        """Tensors that share a storage are written out each: bound what that multiplies to."""
        if self.viewed_elements > 4 * self.stored_elements:
            raise RefusedPickleError(
                "the tensors would be more than four times as large as the file"
            )


Persistent = Callable[[object], object]


class Machine:
    """Runs one pickle that starts at `position`; afterwards `position` is one past its end.

    `allowed` gives the value of each global by its dotted name; `persistent` turns a persistent
    identifier into a value. Raises RefusedPickleError, which names what was met and where.
    """

    def __init__(
        self,
        data: memoryview,
        position: int,
        allowed: Mapping[str, object],
        budget: Budget,
        persistent: Persistent | None = None,
    ) -> None:
        self.data = data
        self.position = position
        self.allowed = allowed
        self.budget = budget
        self.persistent = persistent
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        while True:
            self.budget.spend_opcode()
            code = self.take(1)[0]
            if code == _CODES["STOP"]:
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                self.refuse(f"opcode {_NAMES.get(code, hex(code))}, which checkpoints do not use")
            step(self)

    def refuse(self, what: str) -> NoReturn:
        raise RefusedPickleError(f"the pickle holds {what} (before byte {self.position})")

    def take(self, nbytes: int) -> memoryview:
        """The next bytes, not copied."""
        end = self.position + nbytes
        if end > len(self.data):
            self.refuse(f"a length of {nbytes} bytes where only {len(self.data) - end + nbytes}")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def unsigned(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def text(self, nbytes: int) -> str:
        self.budget.spend_text(nbytes)
        try:
            return str(self.take(nbytes), "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.refuse("a string that is not UTF-8")

    def line(self) -> str:
        """Up to the next newline, which must not be far."""
        window = bytes(self.data[self.position : self.position + _LONGEST_NAME])
        end = window.find(b"\n")
        if end < 0:
            self.refuse(f"a name of more than {_LONGEST_NAME} bytes")
        self.position += end + 1
        return window[:end].decode("utf-8", "replace")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        if not self.stack:
            self.refuse("an opcode that takes from an empty stack")
        return self.stack.pop()

    def pop_mark(self) -> list[object]:
        """Everything above the last mark."""
        if not self.marks:
            self.refuse("an opcode without its mark")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def find(self, name: str) -> object:
        if name not in self.allowed:
            self.refuse(
                f"the global {name[:_LONGEST_NAME]}, which is not one that such a checkpoint needs;"
                " nothing of the file was run. Do not load it elsewhere unless you trust its source"
            )
        return self.allowed[name]

    def call(self) -> None:
        """REDUCE and NEWOBJ: our own constructor in the place of the named one."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Function):
            self.refuse(f"a call of a {type(function).__name__}")
        if not isinstance(arguments, tuple):
            self.refuse(f"a call of {function.name} without a tuple of arguments")
        self.push(function.call(arguments))

    def build(self) -> None:
        """BUILD: an object's attributes."""
        state, target = self.pop(), self.stack[-1] if self.stack else None
        if isinstance(target, Record) and isinstance(state, dict) and not target.fields:
            target.fields = state
        elif isinstance(target, NumpyType) and isinstance(state, tuple) and len(state) > 1:
            if state[1] not in ("<", "|"):
                self.refuse("numbers that are not little-endian")
        elif not (isinstance(target, dict) and isinstance(state, dict)):
            # Attributes of a dictionary (torch's `_metadata`) are no entries and go unread.
            self.refuse(f"a state for a {type(target).__name__}")

    def set_items(self, items: list[object]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, dict) or len(items) % 2:
            self.refuse("entries for what is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def append(self, items: list[object]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, list):
            self.refuse("items for what is not a list")
        target.extend(items)

    def add(self, items: list[object]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, set):
            self.refuse("members for what is not a set")
        target.update(self.key(item) for item in items)

    def key(self, value: object) -> object:
        """Only what hashes at once and cannot be made to collide."""
        if isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**31):
            return value
        return self.refuse(f"a key of type {type(value).__name__}; keys are names or small numbers")

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            self.refuse("a tuple of more than there is")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(items)

    def mark(self) -> None:
        if len(self.marks) >= self.budget.limits.depth:
            self.refuse(f"containers nested more than {self.budget.limits.depth} deep")
        self.marks.append(self.stack)
        self.stack = []

    def remember(self, index: int) -> None:
        if not self.stack:
            self.refuse("an opcode that keeps the top of an empty stack")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            self.refuse(f"a reference to {index}, which was not kept")
        self.push(self.memo[index])

    def integer(self) -> None:
        width = self.unsigned(1)
        if width > _LONGEST_INTEGER:
            self.refuse(f"an integer of {width} bytes")
        self.push(int.from_bytes(self.take(width), "little", signed=True))

    def global_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self.refuse("a global whose name is not a string")
        self.push(self.find(f"{module}.{name}"))

    def identify(self) -> None:
        if self.persistent is None:
            self.refuse("a persistent identifier, which this format does not use")
        self.push(self.persistent(self.pop()))


Step = Callable[[Machine], object]

_STEPS: Mapping[int, Step] = {
    _CODES[name]: step
    for name, step in {
        "PROTO": lambda m: m.take(1),
        "FRAME": lambda m: m.take(8),
        "MARK": Machine.mark,
        "NONE": lambda m: m.push(None),
        "NEWTRUE": lambda m: m.push(True),
        "NEWFALSE": lambda m: m.push(False),
        "BININT": lambda m: m.push(struct.unpack("<i", m.take(4))[0]),
        "BININT1": lambda m: m.push(m.unsigned(1)),
        "BININT2": lambda m: m.push(m.unsigned(2)),
        "LONG1": Machine.integer,
        "BINFLOAT": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        "SHORT_BINUNICODE": lambda m: m.push(m.text(m.unsigned(1))),
        "BINUNICODE": lambda m: m.push(m.text(m.unsigned(4))),
        "BINUNICODE8": lambda m: m.push(m.text(m.unsigned(8))),
        "SHORT_BINBYTES": lambda m: m.push(m.take(m.unsigned(1))),
        "BINBYTES": lambda m: m.push(m.take(m.unsigned(4))),
        "BINBYTES8": lambda m: m.push(m.take(m.unsigned(8))),
        "EMPTY_LIST": lambda m: m.push([]),
        "EMPTY_DICT": lambda m: m.push({}),
        "EMPTY_SET": lambda m: m.push(set()),
        "EMPTY_TUPLE": lambda m: m.push(()),
        "TUPLE": lambda m: m.push(tuple(m.pop_mark())),
        "TUPLE1": lambda m: m.tuple_of(1),
        "TUPLE2": lambda m: m.tuple_of(2),
        "TUPLE3": lambda m: m.tuple_of(3),
        "APPEND": lambda m: m.append([m.pop()]),
        "APPENDS": lambda m: m.append(m.pop_mark()),
        "SETITEM": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
        "SETITEMS": lambda m: m.set_items(m.pop_mark()),
        "ADDITEMS": lambda m: m.add(m.pop_mark()),
        "BINPUT": lambda m: m.remember(m.unsigned(1)),
        "LONG_BINPUT": lambda m: m.remember(m.unsigned(4)),
        "MEMOIZE": lambda m: m.remember(len(m.memo)),
        "BINGET": lambda m: m.recall(m.unsigned(1)),
        "LONG_BINGET": lambda m: m.recall(m.unsigned(4)),
        "GLOBAL": lambda m: m.push(m.find(f"{m.line()}.{m.line()}")),
        "STACK_GLOBAL": Machine.global_from_stack,
        "REDUCE": Machine.call,
        "NEWOBJ": Machine.call,
        "BUILD": Machine.build,
        "BINPERSID": Machine.identify,
    }.items()
}


def require_modest(root: object, limits: Limits) -> None:
    """Raise RefusedPickleError for a tree that is too deep or large to walk, or contains itself.

    References cost a pickle a byte each, so that a few lines can stand for billions of elements
    ("billion laughs"): sizes are added up from the leaves, each container visited once.
    """
    measured: dict[int, tuple[int, int]] = {}  # id → elements, depth
    path: set[int] = set()
    todo: list[tuple[object, bool]] = [(root, False)]
    while todo:
        value, all_below_done = todo.pop()
        children, key = _children(value), id(value)
        if not children or key in measured:
            continue
        if all_below_done:
            path.remove(key)
            below = [measured.get(id(child), (1, 0)) for child in children]
            elements = 1 + sum(count for count, _ in below)
            depth = 1 + max(levels for _, levels in below)
            if elements > limits.elements:
                raise RefusedPickleError(
                    f"the pickle unfolds to more than {limits.elements} elements by references to "
                    "itself"
                )
            if depth > limits.depth:
                raise RefusedPickleError(f"the pickle is nested more than {limits.depth} deep")
            measured[key] = elements, depth
        elif key in path:
            raise RefusedPickleError("the pickle contains itself")
        else:
            path.add(key)
            todo.append((value, True))
            todo.extend((child, False) for child in children)


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set)):
        return list(value)
    return list(value.fields.values()) if isinstance(value, Record) else []
