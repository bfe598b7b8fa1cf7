"""Names for latents: a vocabulary, the naming, and the table that holds the names."""

from .naming import name_latents
from .table import ConceptTable
from .vocabulary import Vocabulary

__all__ = ["ConceptTable", "Vocabulary", "name_latents"]
