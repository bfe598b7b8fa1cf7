"""Names for latents: a vocabulary, the naming, and the table that holds the names."""

from .activation_naming import name_by_activations
from .bias import bias_report
from .bias_result import BiasReport
from .explanation import Explanation, SimilarityExplanation, explain_embedding, explain_similarity
from .hierarchy import ConceptHierarchy, concept_hierarchy
from .naming import name_latents
from .percentiles import ActivationPercentiles
from .probabilities import as_classifier
from .search import ConceptIndex
from .table import ConceptTable
from .vocabulary import Vocabulary

__all__ = [
    "ActivationPercentiles",
    "BiasReport",
    "ConceptHierarchy",
    "ConceptIndex",
    "ConceptTable",
    "Explanation",
    "SimilarityExplanation",
    "Vocabulary",
    "as_classifier",
    "bias_report",
    "concept_hierarchy",
    "explain_embedding",
    "explain_similarity",
    "name_by_activations",
    "name_latents",
]
