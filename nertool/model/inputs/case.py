"""How a word uses capital letters (Collobert et al. 2011, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nertool.config.schema import CaseConfig
from nertool.data.encoding import Table
from nertool.model.inputs.base import Input, Resources
from nertool.text.document import Document

if TYPE_CHECKING:
    from nertool.model.dropout import Noise
    from nertool.model.input_modules.case import CaseVectors

CASES = 5


def case_of(form: str) -> int:
    """Tell how a form uses capitals: 0 no letter with case, 1 no capital, 2 all, 3 the first alone, 4 others."""
    if form.islower():
        return 1
    if form.isupper():
        # A single capital says no more about the rest than a capital at the beginning does.
        return 2 if len(form) > 1 else 3
    if form.lower() == form.upper():
        return 0
    return 3 if form[0].isupper() and form[1:] == form[1:].lower() else 4


class Case(Input):
    """How a word uses capital letters: one of `CASES` ways."""

    Config = CaseConfig
    context_free = True

    @classmethod
    def fit(cls, name: str, config: CaseConfig, documents: Sequence[Document], resources: Resources) -> Case:
        """Make the input; there is nothing to learn."""
        return cls(name, config)

    @classmethod
    def restore(cls, name: str, config: CaseConfig, state: Any) -> Case:
        """Make the input; there is no vocabulary."""
        return cls(name, config)

    def state(self) -> None:
        """Return nothing: there is no vocabulary."""

    def module(self, noise: Noise) -> CaseVectors:
        """Build the table."""
        from nertool.model.input_modules.case import CaseVectors

        return CaseVectors(CASES, self.config.dimensions)

    def encode_forms(self, forms: Sequence[str]) -> Table:
        """Tell the case of each form."""
        return Table(np.fromiter(map(case_of, forms), np.int64, len(forms)))

    def describe(self) -> str:
        """Describe the table."""
        return f"{self.config.dimensions} dimensions for capitals"
