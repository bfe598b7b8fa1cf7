"""Names for latents: a vocabulary, the naming, and the table that holds the names."""

from .activation_naming import name_by_activations
from .naming import name_latents
from .table import ConceptTable
from .vocabulary import Vocabulary

__all__ = ["ConceptTable", "Vocabulary", "name_by_activations", "name_latents"]
