"""Read pickles as data: dicts, lists and names that the caller allows are built, and no other code runs.

Python's own unpickler cannot be bounded: thirty bytes make it allocate gigabytes, and a few more call any function.
Here `pickletools` says what each byte means and reads its argument, and only what describes data is executed.
"""

import pickletools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, NoReturn

from dyncollapse.runtime.untrusted import Refused

MOST_OPERATIONS = 3_000_000  # 5 seconds and 0.7 GB at most; the names of ImageNet's images take 2.6 million
MOST_CALLS = 2**18  # a tensor takes 1 kB beside its numbers
MOST_BITS = 60  # of an integer key of a dict: larger integers can be chosen to have equal hashes

_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # a set hashes its elements, which can be made slow
}
_LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_OPERATIONS = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}


class UnknownName(Refused):
    """A pickle names a class or function that is not allowed."""

    def __init__(self, name: str) -> None:
        """Keep the name, in the form `module.class`."""
        self.name = name[:100]
        super().__init__(f"holds {self.name}, which is never loaded")


@dataclass(frozen=True)
class Call:
    """A function that a pickle may call; it must check its arguments."""

    function: Callable[..., Any]


@dataclass(frozen=True)
class Opaque:
    """Something that is known by its name only."""

    name: str


def read_pickle(file: BinaryIO, names: Mapping[str, Any], load: Callable[[Any], Any]) -> Any:
    """Read one pickle; `file` is then at its end.

    Args:
        file: Bytes that begin with a pickle.
        names: What each global name that is allowed stands for; a `Call` may be called.
        load: Returns the object for a persistent id, by which torch names a storage.

    Returns:
        The pickled object, with sets as lists. It may contain itself, or one object exponentially often.

    Raises:
        ValueError: `UnknownName` for a name that is not allowed, `Refused` for more than `MOST_OPERATIONS` operations
            or `MOST_CALLS` calls, and another for bytes that are no pickle. A damaged pickle can also raise IndexError,
            KeyError and TypeError.

    Examples:
        >>> import io, pickle
        >>> read_pickle(io.BytesIO(pickle.dumps({"a": [1, 2]})), {}, id)
        {'a': [1, 2]}
    """
    machine = _Machine(names, load)
    steps, read = machine.steps(), file.read
    for _ in range(MOST_OPERATIONS):
        code = read(1)
        if code == b".":
            return machine.stack.pop()
        argument, step = steps.get(code) or _no_step(code)
        step(argument(file)) if argument else step()
    raise Refused(f"takes over {MOST_OPERATIONS} operations to read; save its tensors alone")


def _no_step(code: bytes) -> NoReturn:
    name = _OPERATIONS[code].name if code in _OPERATIONS else f"byte {code!r}"
    raise ValueError(f"a pickle's {name} describes no data")


class _Machine:
    """The stack, memo and marks of one pickle."""

    def __init__(self, names: Mapping[str, Any], load: Callable[[Any], Any]) -> None:
        self.names, self.load = names, load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.calls = 0

    def steps(self) -> dict[bytes, tuple[Any, Callable[..., Any]]]:
        """Return how each operation that describes data reads its argument, and executes itself, by its byte."""
        found: dict[str, Callable[..., Any]] = dict.fromkeys(_LITERALS, self.stack.append)
        found |= {name: partial(self._push, make) for name, make in _VALUES.items()}
        for operation in _OPERATIONS.values():
            if step := getattr(self, f"_{operation.name.lower()}", None):
                found[operation.name] = step
        return {
            code: (operation.arg and operation.arg.reader, found[operation.name])
            for code, operation in _OPERATIONS.items()
            if operation.name in found
        }

    def _push(self, make: Callable[[], Any]) -> None:
        self.stack.append(make())

    def _proto(self, _number: int) -> None:
        """Skip what says how the pickle was written."""

    _frame = _proto

    def _put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    _binput = _long_binput = _put

    def _get(self, key: int) -> None:
        self.stack.append(self.memo[key])

    _binget = _long_binget = _get

    def _above_mark(self) -> list[Any]:
        mark = self.marks.pop()
        above = self.stack[mark:]
        del self.stack[mark:]
        return above

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _mark(self) -> None:
        self.marks.append(len(self.stack))

    def _pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _pop_mark(self) -> None:
        self._above_mark()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self) -> None:
        self.stack.append(tuple(self._above_mark()))

    def _last(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _tuple1(self) -> None:
        self._last(1)

    def _tuple2(self) -> None:
        self._last(2)

    def _tuple3(self) -> None:
        self._last(3)

    def _list(self) -> None:
        self.stack.append(self._above_mark())

    _frozenset = _list

    def _dict(self) -> None:
        self.stack.append(as_dict(_pairs(self._above_mark())))

    def _append(self) -> None:
        value = self.stack.pop()
        _only(list, self.stack[-1]).append(value)

    def _appends(self) -> None:
        values = self._above_mark()
        _only(list, self.stack[-1]).extend(values)

    _additems = _appends

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _only(dict, self.stack[-1]).update(as_dict([(key, value)]))

    def _setitems(self) -> None:
        values = self._above_mark()
        _only(dict, self.stack[-1]).update(as_dict(_pairs(values)))

    def _global(self, name: str) -> None:
        name = name.replace(" ", ".", 1)
        if name not in self.names:
            raise UnknownName(name)
        self.stack.append(self.names[name])

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._global(f"{_only(str, module)} {_only(str, name)}")

    def _reduce(self) -> None:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise Refused(f"holds over {MOST_CALLS} tensors and other objects; join them with torch.stack")
        arguments, called = self.stack.pop(), self.stack.pop()
        self.stack.append(called if isinstance(called, Opaque) else _only(Call, called).function(*arguments))

    _newobj = _reduce

    def _build(self) -> None:
        self.stack.pop()  # attributes, for example of an OrderedDict: none is a tensor or a setting

    def _binpersid(self) -> None:
        self.stack.append(self.load(self.stack.pop()))


def as_dict(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a dict of the pairs whose key is a string, None, a bool or a number with a fast hash."""
    return {key: value for key, value in pairs if _is_key(key)}


def _is_key(key: Any) -> bool:
    if isinstance(key, int):
        return key.bit_length() <= MOST_BITS
    return key is None or isinstance(key, str | float)


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _only(kind: type, value: Any) -> Any:
    """Return the value if it is exactly of that type, since a pickle can apply any operation to any object."""
    if type(value) is not kind:
        raise TypeError(f"a pickle treats a {type(value).__name__} as a {kind.__name__}")
    return value
