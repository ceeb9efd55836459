# SPDX-License-Identifier: Apache-2.0
"""What typing, enum, contextlib and hashlib give, for the modules that a harvest needs: importing those, the regular
expressions and the OpenSSL that they import, takes it longer than the harvest itself.

To a type checker these are the library's own.  The modules above the harvest take the library's.
"""

import sys

TYPE_CHECKING = False
"""As typing.TYPE_CHECKING: type checkers take any name like this for true."""

if TYPE_CHECKING or sys.version_info >= (3, 14):  # where annotations are evaluated by other ways than below
    from contextlib import contextmanager, suppress
    from enum import StrEnum
    from hashlib import sha256
    from typing import NamedTuple
else:

    def _field(index):
        return property(lambda self: self[index])

    class _TupleType(type):
        """Makes of a class with annotations one of tuples whose items have names (collections.namedtuple)."""

        def __new__(cls, name, bases, namespace):
            if namespace.get("__qualname__") == "NamedTuple":
                return super().__new__(cls, name, (tuple,), namespace)
            fields = tuple(namespace.get("__annotations__", ()))
            defaults = {field: namespace.pop(field) for field in fields if field in namespace}
            namespace |= {field: _field(index) for index, field in enumerate(fields)}
            namespace |= {"__slots__": (), "_fields": fields, "_field_defaults": defaults, "__match_args__": fields}
            return super().__new__(cls, name, bases, namespace)

    class NamedTuple(metaclass=_TupleType):
        """A tuple whose items have names."""

        __slots__ = ()

        def __new__(cls, *items, **named):
            fields = cls._fields
            if named or len(items) != len(fields):
                values = dict(zip(fields, items, strict=False))
                if len(items) > len(fields) or values.keys() & named or named.keys() - set(fields):
                    raise TypeError(f"{cls.__name__} takes {', '.join(fields)}, and each once")
                values = cls._field_defaults | values | named
                if missing := [field for field in fields if field not in values]:
                    raise TypeError(f"{cls.__name__} lacks {', '.join(missing)}")
                items = (values[field] for field in fields)
            return tuple.__new__(cls, items)

        @classmethod
        def _make(cls, items):
            return cls(*items)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            return type(self)(**(self._asdict() | named))

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._asdict().items())})"

    class _WordsType(type):
        """Makes of each word of a class a member of it (enum.StrEnum)."""

        def __new__(cls, name, bases, namespace):
            words = {k: v for k, v in namespace.items() if isinstance(v, str) and not k.startswith("_")}
            made = super().__new__(cls, name, bases, namespace)
            made._members = {}
            for key, word in words.items():
                member = str.__new__(made, word)
                member.name, member.value = key, word
                made._members[word] = member
                setattr(made, key, member)
            return made

        def __call__(cls, word):
            if word not in cls._members:
                raise ValueError(f"{word!r} is no {cls.__name__}")
            return cls._members[word]

        def __iter__(cls):
            return iter(cls._members.values())

        def __contains__(cls, word):
            return word in cls._members

        def __len__(cls):
            return len(cls._members)

    class StrEnum(str, metaclass=_WordsType):  # noqa: SLOT000 - members have names
        """One of a closed list of words."""

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

        def __reduce__(self):
            return type(self), (self.value,)

    class _Manager:
        """What a generator does around a block (contextlib.contextmanager)."""

        def __init__(self, generator):
            self._generator = generator

        def __enter__(self):
            return next(self._generator)

        def __exit__(self, kind, error, trace):
            try:
                if error is None:
                    next(self._generator)
                else:
                    self._generator.throw(error)
            except StopIteration as stop:
                return stop is not error
            except BaseException as raised:
                # a generator cannot raise StopIteration: that comes as the cause of another error
                if raised is error or (isinstance(error, StopIteration) and raised.__cause__ is error):
                    return False
                raise
            raise RuntimeError("the generator goes on behind its block")

    def contextmanager(function):
        """Make a context manager of a generator with one ``yield``."""

        def manager(*arguments, **named):
            return _Manager(function(*arguments, **named))

        manager.__name__, manager.__qualname__, manager.__doc__ = (
            function.__name__,
            function.__qualname__,
            function.__doc__,
        )
        return manager

    class suppress:  # noqa: N801 - the library's name
        """Leave a block without a word when one of these errors ends it."""

        def __init__(self, *errors):
            self._errors = errors

        def __enter__(self):
            return None

        def __exit__(self, kind, error, trace):
            return kind is not None and issubclass(kind, self._errors)

    try:  # Python's own
        if sys.version_info >= (3, 12):
            from _sha2 import sha256 as _sha256
        else:
            from _sha256 import sha256 as _sha256
    except ImportError:
        from hashlib import sha256 as _sha256

    _LITTLE = 1 << 16

    def sha256(data=b""):
        """SHA-256 begun with *data*: of much, OpenSSL's, which takes 2 ms to load and is several times faster."""
        if len(data) <= _LITTLE:
            return _sha256(data)
        import hashlib

        return hashlib.sha256(data)


__all__ = ["TYPE_CHECKING", "NamedTuple", "StrEnum", "contextmanager", "sha256", "suppress"]
