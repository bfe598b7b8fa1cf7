from .accuracy import best_concepts, label_accuracy, outside_vocabulary
from .baselines import Agreement, Baseline, ClipDissect, Invert, VocabularyCosine
from .cosy import CosyScore, cosy_score
from .hard_negatives import (
    HardNegatives,
    hard_negatives_by_concepts,
    hard_negatives_by_nearness,
    nearness_of_concepts,
)
from .label_checks import LabelChecks, check_labels
from .measures import MEASURES, TRUSTED, Measure, measure_labels
from .pairs import PairConfirmation, confirm_by_pairs
from .sanity import label_sanity, sanity_tests
from .semanticlens import clarity, polysemanticity, redundancy
from .truth import Reading, SceneTruth, Truth, WordTruth, known_truth

__all__ = [
    "MEASURES",
    "TRUSTED",
    "Agreement",
    "Baseline",
    "ClipDissect",
    "CosyScore",
    "HardNegatives",
    "Invert",
    "LabelChecks",
    "Measure",
    "PairConfirmation",
    "Reading",
    "SceneTruth",
    "Truth",
    "VocabularyCosine",
    "WordTruth",
    "best_concepts",
    "check_labels",
    "clarity",
    "confirm_by_pairs",
    "cosy_score",
    "hard_negatives_by_concepts",
    "hard_negatives_by_nearness",
    "known_truth",
    "label_accuracy",
    "label_sanity",
    "measure_labels",
    "nearness_of_concepts",
    "outside_vocabulary",
    "polysemanticity",
    "redundancy",
    "sanity_tests",
]
