from .budget import Budget
from .control import Control
from .imagers.base import CannotDrawError, Imager
from .imagers.composition import CompositionImager
from .imagers.diffusion import DiffusersImager
from .imagers.inference import InferenceImager
from .imagers.retrieval import RetrievalImager
from .imagers.scenes import ScenesImager
from .imagers.tags import TagsImager
from .label import label_neuron, label_neurons
from .neuron import FunctionNeuron, MSAENeuron, Neuron, UnitNeuron
from .proposers.base import Answer, Proposer, Request
from .proposers.inference import InferenceProposer
from .proposers.transformers_model import TransformersProposer
from .proposers.vocabulary import VocabularyProposer
from .result import NeuronLabel, NeuronLabels
from .starts import ZeroShotStart
from .words import load_word_embeds
