"""A pickle of {name: numbers}, read without running it: the opcodes are walked, and nothing that they name is called.

The decathlon's decathlon_mean_std.pickle, protocol 2 of Python 2, holds lists of floats and little numpy arrays. An
array stands in it as _reconstruct(ndarray, ...) with the state (version, shape, dtype, fortran, bytes). These two calls
and no others are understood, and as data. Whatever else a pickle does is refused.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nettailor_cli.core.errors import DataError

_ARRAY = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_DTYPE = "numpy dtype"
_NDARRAY = "numpy ndarray"
_KINDS = ("f4", "f8")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "BINFLOAT", "FLOAT", "INT", "SHORT_BINSTRING", "BINSTRING", "BINUNICODE",
     "SHORT_BINUNICODE", "SHORT_BINBYTES", "BINBYTES"}
)  # fmt: skip
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Name:
    """A global that the pickle names."""

    text: str


@dataclass
class _Built:
    """The promise of an array or a dtype, and the state that it was given."""

    kind: str
    arguments: tuple[Any, ...]
    state: tuple[Any, ...] = field(default=())


def read_arrays(data: bytes) -> dict[str, tuple[float, ...]]:
    """{name: numbers}. Raises DataError for everything that is not such a pickle."""
    try:
        document = _walk(data)
        if not isinstance(document, dict):
            raise DataError("the pickle is not a dictionary")
        return {str(name): _numbers(value) for name, value in document.items()}
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may leave the stack in any state
        raise DataError(f"the pickle is damaged: {type(error).__name__}: {error}") from error


def _walk(data: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        place = marks.pop()
        taken = stack[place:]
        del stack[place:]
        return taken

    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in _TUPLES:
            count = _TUPLES[name]
            taken = stack[len(stack) - count :]
            del stack[len(stack) - count :]
            stack.append(tuple(taken))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name == "APPENDS":
            taken = since_mark()
            stack[-1].extend(taken)
        elif name == "SETITEMS":
            taken = since_mark()
            stack[-1].update(zip(taken[::2], taken[1::2], strict=True))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "GLOBAL":
            stack.append(_Name(argument))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(_promised(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], _Built):
                raise DataError("the pickle builds something else than an array")
            stack[-1].state = state
        else:
            raise DataError(f"the pickle has {name}: only dictionaries of lists and numpy arrays are read")
    raise DataError("the pickle ends too early")


def _promised(called: Any, arguments: Any) -> _Built:
    if isinstance(called, _Name) and isinstance(arguments, tuple):
        if called.text in _ARRAY and arguments[:1] == (_Name(_NDARRAY),):
            return _Built("array", arguments)
        if called.text == _DTYPE and arguments[:1] and _text(arguments[0]) in _KINDS:
            return _Built("dtype", arguments)
    raise DataError(f"the pickle calls {getattr(called, 'text', called)}: only numpy arrays of floats are read")


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, list) and all(isinstance(number, int | float) for number in value):
        return tuple(map(float, value))
    if not isinstance(value, _Built) or value.kind != "array":
        raise DataError("a value of the pickle is not a list or an array of numbers")
    _, shape, dtype, _, content = value.state
    if not isinstance(dtype, _Built) or dtype.kind != "dtype":
        raise DataError("an array of the pickle has no type")
    order = _text(dtype.state[1]) if dtype.state else "<"
    # Python 2's bytes come as text, a character each
    raw = content if isinstance(content, bytes) else content.encode("latin-1")
    numbers = np.frombuffer(raw, dtype=np.dtype(order + _text(dtype.arguments[0])))
    if (len(numbers),) != tuple(shape):
        raise DataError(f"an array of the pickle has {len(numbers)} numbers in place of {shape}")
    return tuple(map(float, numbers))


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
