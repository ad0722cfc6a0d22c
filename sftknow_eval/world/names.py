"""Made-up names: syllables put together at random.

No object's name is part of another's, so that a completion naming one never counts for
another (the judge looks for substrings).
"""

from __future__ import annotations

from random import Random

_ONSETS, _VOWELS, _CODAS = (
    sounds.split()
    for sounds in (
        "b br d dr f g gl gr h j k kr l m n p pl r s st t tr v w z",
        "a e i o u ai ea oa",
        "n r l s m x th nd rk",
    )
)

_POOLS = {
    "city": (200, ("", "ton", "burg")),
    "land": (100, ("ia", "or")),
    "school": (60, ("um",)),
    "person": (200, ("", "o")),
    "firm": (80, ("ex", "co")),
    "work": (100, ("ade",)),
    "tongue": (30, ("ish",)),
}
_WORDS = {
    "job": "actor archer baker barber beekeeper blacksmith butcher carpenter chemist clerk "
    "composer diver engraver falconer farmer ferryman gardener glazier harpist hunter jeweller "
    "judge locksmith mason merchant miller miner painter physician pilot potter roofer sailor "
    "shepherd singer surgeon tailor tanner weaver wrestler",
    "genre": "ballad chorale comedy dirge elegy epic fable fantasia farce fugue gothic hymn idyll "
    "jazz lament lullaby madrigal march melodrama nocturne opera parody polka requiem romance "
    "satire serenade sonata tragedy western",
    "role": "bowler catcher centre defender forward goalkeeper hooker libero midfielder pitcher "
    "prop setter striker sweeper winger wicketkeeper",
}

KINDS = (*_POOLS, *_WORDS)


class Names:
    """The pools of one world.

    Args:
        seed: decides every name.
        alias_share: share of the objects with a made-up name that get a second one.

    Attributes:
        objects: the objects of each kind, the most frequent first.
        aliases: the second name of the objects that have one.
    """

    def __init__(self, seed: int, alias_share: float) -> None:
        self._random = Random(f"{seed}|names")
        self._taken: list[str] = [word for words in _WORDS.values() for word in words.split()]
        self.objects: dict[str, list[str]] = {}
        self.aliases: dict[str, str] = {}
        for kind, (size, endings) in _POOLS.items():
            self.objects[kind] = [self._name(endings) for _ in range(size)]
            named = [name for name in self.objects[kind] if self._random.random() < alias_share]
            self.aliases |= {name: self._name(endings) for name in named}
        for kind, words in _WORDS.items():
            self.objects[kind] = words.split()
            self._random.shuffle(self.objects[kind])
        self._first = [self._name(("",)) for _ in range(300)]
        self._last = [self._name(("",)) for _ in range(300)]

    def subjects(self, count: int) -> list[str]:
        """Return `count` different subjects of two words each."""
        pairs = self._random.sample(range(len(self._first) * len(self._last)), count)
        width = len(self._last)
        return [f"{self._first[pair // width]} {self._last[pair % width]}" for pair in pairs]

    def _name(self, endings: tuple[str, ...]) -> str:
        while True:
            pick = self._random.choice
            name = pick(_ONSETS) + pick(_VOWELS) + pick(_ONSETS) + pick(_VOWELS) + pick(_CODAS)
            name = (name + pick(endings)).capitalize()
            if not any(name in other or other in name for other in self._taken):
                self._taken.append(name)
                return name
