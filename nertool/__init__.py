"""nertool: named-entity tagging with BiLSTM-CNN-CRF (Ma & Hovy 2016)."""

__version__ = "0.1.0"
