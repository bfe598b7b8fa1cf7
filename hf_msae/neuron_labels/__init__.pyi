from .budget import Budget
from .control import Control
from .imagers.base import CannotDrawError, Imager
from .label import label_neuron, label_neurons
from .neuron import FunctionNeuron, MSAENeuron, Neuron, UnitNeuron
from .proposers.base import Answer, Proposer, Request
from .result import NeuronLabel, NeuronLabels
from .words import load_word_embeds
