"""Whose code a file may ask for: this package's, and that of packages which the caller names. Importing runs code."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Trust", "check_trusted", "trusted_packages"]

Trust = str | Iterable[str]
"""Names of packages whose code may run, or one name."""


def trusted_packages(trust: Trust) -> set[str]:
    """Top-level names of the packages whose code may run.

    Args:
        trust: names of packages beside this one.
    """
    return {"zoo", *(name.partition(".")[0] for name in ([trust] if isinstance(trust, str) else trust))}


def check_trusted(path: str, owner: object, trust: Trust) -> None:
    """Refuse the path of a class or a function in a package that nobody trusts.

    Args:
        path: the dotted path that a file names.
        owner: the file, for the message.
        trust: names of packages beside this one.

    Raises:
        ValueError: the package is not trusted, or this is no path; the message says how to trust it.
    """
    package, dot, rest = path.partition(".")
    if not dot or not all(part.isidentifier() for part in (package, *rest.split("."))):
        raise ValueError(f"{owner} asks for {path!r}; only classes under 'zoo.' are built")
    if package not in trusted_packages(trust):
        raise ValueError(
            f"{owner} asks for {path!r}; only classes under 'zoo.' are built, unless you trust the code of {package}: "
            f"trust=[{package!r}], or --trust {package}"
        )
