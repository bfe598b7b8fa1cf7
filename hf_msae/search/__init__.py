"""Search: embeddings by example, by concepts, and by an example with some concepts changed."""

from .index import ConceptIndex

__all__ = ["ConceptIndex"]
