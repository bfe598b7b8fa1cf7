from .activation_naming import name_by_activations
from .agreement import name_by_agreement
from .explanation import Explanation, SimilarityExplanation, explain_embedding, explain_similarity
from .hierarchy import ConceptHierarchy, concept_hierarchy
from .label_naming import name_by_labels
from .naming import name_latents
from .percentiles import ActivationPercentiles
from .table import ConceptTable
from .vocabulary import Vocabulary
