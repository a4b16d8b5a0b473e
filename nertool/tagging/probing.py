"""A model that was just loaded labels a sentence: weights may be finite, and what they compute not."""

from __future__ import annotations

from pathlib import Path

from nertool.errors import BundleError, CorpusError, NertoolError
from nertool.model.outline import Outline
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document

_PROBE = ("Ada", "Lovelace", "lived", "in", "London", ",", "1815", "-", "1852", ".")


def try_out(model: Outline, path: Path) -> None:
    """Label a sentence.

    Args:
        model: That was loaded.
        path: What errors name.

    Raises:
        BundleError: A score or probability is not finite.
    """
    columns = {getattr(entry, "column", name): _PROBE for name, entry in model.config.active_inputs.items()}
    document = Document(_PROBE, columns=columns)
    try:
        for each in model.inputs.values():
            each.check(document)
    except CorpusError:  # an input of another package reads something else
        return
    try:
        Predictor(model).predict([document], probabilities=True, marginals=True)
    except NertoolError as problem:
        raise BundleError(f"{path}: {problem}") from None
