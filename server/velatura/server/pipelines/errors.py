"""What a caller can get wrong beyond the image itself; errors name the field and the remedy."""

# ruff: noqa: N818 - the names say what happened, as gRPC's statuses do

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher


class RequestError(Exception):
    """A request that cannot be served as it stands."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path in the request, and one or two sentences on the problem and the
    remedy."""

    field: str
    description: str


class InvalidRequest(RequestError):
    """Fields whose values are wrong whatever the server's models."""

    def __init__(self, violations: Iterable[Violation], reason: str = "INVALID_FIELD") -> None:
        self.violations = tuple(violations)
        self.reason = reason
        super().__init__("; ".join(f"{each.field}: {each.description}" for each in self.violations))

    @classmethod
    def of(cls, field: str, description: str, reason: str = "INVALID_FIELD") -> InvalidRequest:
        """The error for a single field."""
        return cls([Violation(field, description)], reason)


def _likeness(known: str, asked: str) -> float:
    """0 for nothing in common to 1 for equal."""
    return SequenceMatcher(None, known.lower(), asked.lower()).ratio()


class UnknownThing(RequestError):
    """A name that the bundle does not know. `kind` is the sort of thing, such as "direction"."""

    def __init__(self, kind: str, name: str, known: Sequence[str], field: str) -> None:
        self.kind = kind
        self.name = name
        # The likeliest first: a long list is cut short on its way to the caller.
        self.known = tuple(sorted(known, key=lambda each: -_likeness(each, name)))
        self.field = field
        names = ", ".join(self.known) if self.known else "none"
        super().__init__(f"{field}: there is no {kind} {name!r}. Known: {names}.")


class Unsupported(RequestError):
    """A well-formed request that this server's bundle has no network for."""

    def __init__(self, field: str, problem: str, advice: str) -> None:
        self.field = field
        super().__init__(f"{field}: {problem} {advice}")


class TokenOfAnotherModel(RequestError):
    """A latent token made by another synthesis network; hashes are hexadecimal prefixes."""

    def __init__(self, field: str, made_by: str, wanted: str) -> None:
        self.field = field
        self.made_by = made_by
        self.wanted = wanted
        super().__init__(
            f"{field}: the token was made by the synthesis network {made_by}…, "
            f"but the generator's is {wanted}…. Encode the image again with this server."
        )
