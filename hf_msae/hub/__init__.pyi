from .converters import FORMATS, convert_checkpoint
from .converters.saelens_export import export_saelens
from .publishing.card import render_model_card, write_model_card
from .publishing.embeddings import push_embeddings, render_embeddings_card
from .publishing.release import Release, push_to_hub
from .publishing.remote_code import add_remote_code
from .reading.registry import ReleasedModel, get_released, list_released
