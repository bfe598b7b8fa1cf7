from .bias.analysis import bias_report as bias_report
from .concepts.naming import name_latents as name_latents
from .concepts.table import ConceptTable as ConceptTable
from .concepts.vocabulary import Vocabulary as Vocabulary
from .embeddings import load_embeddings as load_embeddings
from .hub.converters import convert_checkpoint as convert_checkpoint
from .hub.reading.registry import list_released as list_released
from .metrics.evaluation import evaluate_msae as evaluate_msae
from .model.configuration_msae import MSAEConfig as MSAEConfig
from .model.modeling_msae import MSAEModel as MSAEModel
from .model.modeling_msae import MSAEOutput as MSAEOutput
from .report.page import write_report as write_report
from .search.index import ConceptIndex as ConceptIndex
from .training.arguments import MSAETrainingArguments as MSAETrainingArguments
from .training.callbacks import MSAETrainerCallback as MSAETrainerCallback
from .training.trainer import MSAETrainer as MSAETrainer
from .vision_text import VisionTextMSAE as VisionTextMSAE

__version__: str
