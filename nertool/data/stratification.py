"""Choose a share of a corpus so that it is like the rest: shuffled, and with each type in both parts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

# The choice is the same whatever the seed of a training is, so that trainings are judged by the same sentences.
_SEED = 0


def choose_share(
    sizes: Sequence[int], types: Sequence[Mapping[str, int]], share: float, allowed: Sequence[bool]
) -> set[int]:
    """Choose groups of sentences for validation.

    The rarest type is served first: of each about its share is chosen, at least one where there are two groups
    with it, and never all. The others are filled up at random. At least one group is left.

    Args:
        sizes: Sentences of each group.
        types: How often each type occurs in each group.
        share: Of the sentences, in (0, 1).
        allowed: Whether a group may be chosen.

    Returns:
        Indices of the chosen groups; none where no group may be chosen.
    """
    wanted = max(1, round(share * sum(sizes)))
    totals: Counter[str] = Counter()
    left: Counter[str] = Counter()  # groups with a type that are not chosen
    for each in types:
        totals.update(each)
        left.update(each.keys())
    order = [index for index in range(len(sizes)) if allowed[index]]
    random.Random(_SEED).shuffle(order)
    goals = {name: max(1, round(share * total)) for name, total in totals.items()}
    held: Counter[str] = Counter()
    chosen: set[int] = set()
    size = 0

    def fits(index: int, slack: float) -> bool:
        return (
            index not in chosen
            and len(chosen) + 1 < len(sizes)
            and (not chosen or size + sizes[index] <= slack * wanted)
            and all(left[name] > 1 for name in types[index])
        )

    def choose(index: int) -> None:
        nonlocal size
        chosen.add(index)
        size += sizes[index]
        held.update(types[index])
        left.subtract(types[index].keys())

    for name in sorted(totals, key=lambda name: (left[name], name)):
        for index in order:
            if held[name] >= goals[name]:
                break
            # A type that has none yet may make the share larger than it was meant to be.
            if name in types[index] and fits(index, 1.0 if held[name] else 2.0):
                choose(index)
    for index in order:
        within = all(held[name] + count <= goals[name] for name, count in types[index].items())
        if size < wanted and within and fits(index, 1.0):
            choose(index)
    for index in order:
        if size < wanted and fits(index, 1.25):
            choose(index)
    if not chosen:  # each group has a type that no other has
        chosen.update(index for index in order[:1] if len(sizes) > 1)
    return chosen
