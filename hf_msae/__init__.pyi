from .bias.analysis import bias_report
from .concepts.naming import name_latents
from .concepts.table import ConceptTable
from .concepts.vocabulary import Vocabulary
from .embeddings import load_embeddings
from .hub.converters import convert_checkpoint
from .hub.reading.registry import list_released
from .metrics.evaluation import evaluate_msae
from .model.configuration_msae import MSAEConfig
from .model.modeling_msae import MSAEModel, MSAEOutput
from .report.page import write_report
from .search.index import ConceptIndex
from .training.arguments import MSAETrainingArguments
from .training.callbacks import MSAETrainerCallback
from .training.trainer import MSAETrainer
from .vision_text import VisionTextMSAE

__version__: str
