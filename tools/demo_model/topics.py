"""The register of what can be talked about: each topic is a function that makes one short exchange."""

from collections.abc import Callable

from .words import Random, Turn

Maker = Callable[[Random], list[Turn]]
_topics: list[tuple[float, Maker]] = []  # how often, what


def topic(weight: float) -> Callable[[Maker], Maker]:
    """Registers a maker; topics are drawn in proportion to their weights."""

    def register(make: Maker) -> Maker:
        _topics.append((weight, make))
        return make

    return register


def make_turns(r: Random, exclude: Maker | None = None) -> list[Turn]:
    """One exchange of a random topic."""
    makers = [(w, m) for w, m in _topics if m is not exclude]
    return r.choices([m for _, m in makers], [w for w, _ in makers])[0](r)
